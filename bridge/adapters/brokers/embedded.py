"""The embedded broker: noida-db, a Kafka-speaking server that is one file inside a Python wheel."""

import contextlib
import importlib.resources
import importlib.util
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.adapters.brokers.process import BrokerProcess, BrokerUnavailable, directory_of, free_ports, running

READY_TIMEOUT_S = 30.0


def embedded_obstacle() -> str | None:
    """Why the embedded broker cannot be started here and what to do about it; None when it can."""
    if importlib.util.find_spec("noida_db") is None:
        return "the embedded broker is not installed. Run: pip install 'tams-bridge[embedded]'"
    return None


@contextlib.asynccontextmanager
async def embedded_broker(data_dir: Path | None = None, port: int = 0) -> AsyncIterator[BrokerProcess]:
    """A running embedded broker, stopped at the end.

    Args:
        data_dir: where its data and its log go; None is a temporary directory, removed at the end.
        port: the port of the loopback address to listen on; 0 is a free one.

    It keeps data over `stop()`, and promises nothing over `kill()`.

    Raises:
        BrokerUnavailable: it is not installed, or it did not come up.
    """
    obstacle = embedded_obstacle()
    if obstacle is not None:
        raise BrokerUnavailable(obstacle)
    async with directory_of(data_dir) as directory:
        broker = _broker(directory, port or free_ports(1)[0])
        async with running(broker, keeps_data=data_dir is not None):
            yield broker


def _broker(directory: Path, port: int) -> BrokerProcess:
    data = str(directory / "data")
    return BrokerProcess(
        name="embedded",
        port=port,
        data_dir=directory,
        command=(str(_program()), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", data),
        ready_timeout_s=READY_TIMEOUT_S,
        log_file=directory / "broker.log",
    )


def _program() -> Path:
    program = Path(str(importlib.resources.files("noida_db"))) / ("noida-db.exe" if os.name == "nt" else "noida-db")
    if not program.is_file():
        raise BrokerUnavailable(
            f"the package noida-db is damaged, there is no {program}. Run: pip install --force-reinstall noida-db"
        )
    if not os.access(program, os.X_OK):  # some installers drop the permission
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program
