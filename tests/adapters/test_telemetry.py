"""What an operator reads in the log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.adapters.telemetry import configure_logging
from bridge.settings import LogSettings


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging(LogSettings(format="json"), file=tmp_path / "log")
    yield tmp_path / "log"
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_library_that_repeats_itself_is_heard_once_a_minute(log: Path) -> None:
    """With the brokers gone, aiokafka says the same many times a second; other lines must still be found."""
    for node in range(50):
        logging.getLogger("aiokafka.cluster").error("Unable connect to node with id %s", node)

    assert [line["event"] for line in lines(log)] == ["Unable connect to node with id 0"]


def test_our_own_lines_are_all_written(log: Path) -> None:
    """Two jobs that end alike are two lines."""
    for _ in range(2):
        logging.getLogger("worker").warning("request parked")

    assert len(lines(log)) == 2
