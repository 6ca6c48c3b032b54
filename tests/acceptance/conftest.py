"""Commands typed in this process."""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from bridge.cli import main
from tests.acceptance.commands import Run, Said
from tests.acceptance.fake_api import KEY, FakeApi, fake_api


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command, with no setting of the outside world."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, printed.out, printed.err)

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield command
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def api(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An API that answers as told, and that the commands find."""
    del run  # has cleared the settings
    with fake_api() as running:
        monkeypatch.setenv("BRIDGE_API__URL", running.url)
        monkeypatch.setenv("BRIDGE_API__KEY", KEY)
        yield running
