"""A worker whose wall clock can be stepped, as an administrator or a time server may do it.

    python -m tests.crash.stepped FILE worker

FILE holds a double, how many s its clock is ahead of the machine's, and may change at any time. The monotonic clock, by
which pauses and the rate are measured, knows no steps; nor do Kafka's and TAMS' clients, which have none of our clock.
At SIGUSR1 it says what each of its tasks is waiting for.
"""

import asyncio
import signal
import struct
import sys
from datetime import datetime, timedelta
from mmap import ACCESS_READ, mmap
from pathlib import Path

import uvloop
from typing_extensions import override

from bridge.adapters.clock import SystemClock
from bridge.adapters.telemetry import configure_logging
from bridge.runtime import run_roles
from bridge.settings import Settings, read_settings

_AHEAD = struct.Struct("d")


class SteppedClock(SystemClock):
    """Implements `bridge.ports.Clock`.

    Args:
        file: says how far it is ahead.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._ahead = mmap(opened.fileno(), _AHEAD.size, access=ACCESS_READ)

    @override
    def now(self) -> datetime:
        return super().now() + timedelta(seconds=_AHEAD.unpack(self._ahead[:])[0])


def step(file: Path, ahead_s: float) -> None:
    """Let the clocks that follow this file, which is made if it is not there, be so many s ahead."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(_AHEAD.pack(ahead_s))


def command(file: Path) -> tuple[str, ...]:
    """What runs a role by such a clock, without the role's name."""
    return (sys.executable, "-m", "tests.crash.stepped", str(file))


def main() -> None:
    """Run a worker by such a clock until a signal comes."""
    if sys.argv[2:] != ["worker"]:
        sys.exit(f"expected FILE worker, got {sys.argv[1:]}")
    settings = read_settings()
    configure_logging(settings.log)
    uvloop.run(_run(settings, SteppedClock(Path(sys.argv[1]))))


async def _run(settings: Settings, clock: SteppedClock) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_of_tasks)
    await run_roles(settings, {"worker"}, clock=clock)


def _tell_of_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=8, file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
