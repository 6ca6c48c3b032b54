"""`docs/guarantees.md` promises nothing that no test shows."""

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    """The rows of the page's tables of promises: everything that has a column of tests."""
    rows: list[str] = []
    is_promised = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_promised = False
        elif line.endswith("| shown by |"):
            is_promised = True
        elif is_promised and not line.startswith("|---"):
            rows.append(line)
    return rows


@cache
def _names_of(module: Path) -> frozenset[str]:
    """Names of the test functions and state machines of a module."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    names = {node.name for node in defined} | {
        target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)
    }
    return frozenset(name for name in names if name.lower().startswith("test"))


def test_every_promise_names_a_test() -> None:
    """A sentence without a test is a wish."""
    assert len(promises()) > 20
    assert [row for row in promises() if not NAMED.search(row)] == []


def test_every_test_that_is_named_exists() -> None:
    """Tests are renamed and removed, and then nobody shows what is still promised."""
    missing = [
        f"{module}::{name}"
        for module, name in NAMED.findall(PAGE.read_text(encoding="utf-8"))
        if not (TESTS / module).is_file() or name not in _names_of(TESTS / module)
    ]

    assert missing == []
