"""A role whose clock runs fast, so that a test sees an hour of it in half a minute.

    python -m tests.crash.fast 120 worker

What the bridge waits for by its own clock passes so many times as fast; what its libraries wait for does not: the
time-outs of Kafka and of HTTP stay real.
"""

import asyncio
import sys
import time
from datetime import datetime, timedelta

import uvloop
from typing_extensions import override

from bridge.adapters.clock import SystemClock
from bridge.adapters.telemetry import configure_logging
from bridge.runtime import run_roles
from bridge.settings import read_settings

FAST = (sys.executable, "-m", "tests.crash.fast")

_BEGINS_AGO = timedelta(hours=12)
"""It begins in the past, since brokers refuse records from the future (`message.timestamp.after.max.ms`)."""

_SHORTEST_S = 0.005
"""Of real time: pauses are not made shorter than that, as a loop that turns so fast has no time for anything else."""


class FastClock(SystemClock):
    """Implements `bridge.ports.Clock`.

    Args:
        speed: its seconds to a real one.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._begun, self._real = super().now() - _BEGINS_AGO, time.monotonic()

    @override
    def now(self) -> datetime:
        return self._begun + timedelta(seconds=self.monotonic())

    @override
    def monotonic(self) -> float:
        return (time.monotonic() - self._real) * self._speed

    @override
    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        real = None if seconds is None else max(seconds / self._speed, min(seconds, _SHORTEST_S))
        await super().wait(event, real)


def main() -> None:
    """Run a role by such a clock until a signal comes."""
    speed, role = float(sys.argv[1]), sys.argv[2]
    if role not in {"worker", "forwarder"}:
        sys.exit(f"no role {role}: expected worker or forwarder")
    settings = read_settings()
    configure_logging(settings.log)
    uvloop.run(run_roles(settings, {"worker" if role == "worker" else "forwarder"}, clock=FastClock(speed)))


if __name__ == "__main__":
    main()
