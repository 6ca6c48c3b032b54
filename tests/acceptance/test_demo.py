"""The demo is a promise of the README: it must end well on whatever machine it is tried."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bridge.cli import main


@pytest.fixture(autouse=True)
def _log_put_back() -> Iterator[None]:
    """The demo sends the log of this process to a file of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def test_the_demo_ends_as_expected_and_leaves_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 24 requests of mixed fate, each named in the closing table with its outputs; exit code 0."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path)])

    shown = capsys.readouterr().out
    files = sorted(tmp_path.glob("*.png"))
    assert ended.value.code == 0, shown
    assert "27 requests" in shown
    assert "all as expected" in shown
    assert all(file.name in shown for file in files)
    for file in files:
        with Image.open(file) as image:
            image.verify()
    assert len(files) == 20
