"""How commands run and speak: answers go to standard output, notes for people to standard error."""

from collections.abc import Coroutine
from typing import TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console

T = TypeVar("T")

answers = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False)


def run(work: Coroutine[None, None, T]) -> T:
    """Run the asynchronous part of a command; Ctrl-C ends it with 130."""
    try:
        return uvloop.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def note(text: str) -> None:
    """Tell the person something that is not part of the answer."""
    notes.print(printable(text), soft_wrap=True, markup=False)


def print_json(document: object) -> None:
    """Print one JSON document on a line of its own."""
    compact = msgspec.json.format(msgspec.json.encode(document), indent=-1)
    print(compact.decode(), flush=True)  # noqa: T201  this is the answer


def printable(text: str) -> str:
    """Text of others without what would move the cursor or change colours."""
    return "".join(character if character.isprintable() or character == "\n" else "�" for character in text)
