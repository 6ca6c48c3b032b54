"""What stands around a real worker that runs fast: a clock, a topic and a ledger in memory, and silence.

The worker, its tracker and its way to TAMS are the real ones; only Kafka is left out, which would count a broker's real
milliseconds as so many times as long.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from urllib.request import urlopen

import msgspec

from bridge.messages import Answer
from bridge.ports import Arrival, Changes, OpenLedger

_TRIES = 50


class FastClock:
    """Implements `bridge.ports.Clock`: an emulator's own time, which may run many times as fast as the machine's.

    Both of its times are the emulator's unix seconds, so that what the emulator says of its jobs can be compared.

    Args:
        url: of the emulator.
        speed: its seconds to a real one.
    """

    def __init__(self, url: str, speed: float) -> None:
        self._speed = speed
        self._real, self._emulated = min((_read(url) for _ in range(_TRIES)), key=lambda read: read[2])[:2]

    def now(self) -> datetime:
        """See the port."""
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        """See the port."""
        return self._emulated + (time.monotonic() - self._real) * self._speed

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """See the port."""
        if event.is_set():
            return
        try:
            async with asyncio.timeout(None if seconds is None else seconds / self._speed):
                await event.wait()
        except TimeoutError:
            return

    async def reach(self, moment: float) -> None:
        """Return once it is so late, on `monotonic`."""
        await self.wait(asyncio.Event(), max(0.0, moment - self.monotonic()))


def _read(url: str) -> tuple[float, float, float]:
    """The machine's time, the emulator's at the same moment, and by how much that may be wrong."""
    before = time.monotonic()
    with urlopen(f"{url}/_emulator/health") as answer:  # noqa: S310 -- an emulator this bench has started
        emulated = float(json.load(answer)["emulatedTime"])
    after = time.monotonic()
    return (before + after) / 2, emulated, after - before


class OneTopic:
    """Implements `bridge.ports.Feed`; the only partition of the requests topic."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._next = 0

    def begin(self, partition: int, position: int | None) -> None:
        """See the port."""
        del partition, position
        self.begun.set()

    def hold(self, partition: int) -> None:
        """See the port."""

    def record(self, request_id: str, params: object) -> Arrival:
        """The next request."""
        offset, self._next = self._next, self._next + 1
        value = msgspec.json.encode({"params": params})
        return Arrival(offset=offset, key=request_id.encode(), value=value)


class OneLedger:
    """Implements `bridge.ports.Ledgers` and `Ledger`; keeps what the bench wants to know and nothing else."""

    def __init__(self) -> None:
        self.job_ids: dict[str, str] = {}
        self.ended_at: dict[str, datetime] = {}

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        """See the port."""
        del partition
        return self._open()

    async def commit(self, changes: Changes) -> None:
        """See the port."""
        for request_id, record in changes.records.items():
            if record is not None and record.job_id is not None:
                self.job_ids[request_id] = record.job_id
        self.ended_at.update({event.request_id: event.time for event, _ in changes.events if event.type.is_terminal})

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[OpenLedger]:
        yield OpenLedger(ledger=self, records=(), params={}, position=None)


class Counted:
    """Implements `bridge.ports.Telemetry`: counts calls, and how long they took by the fast clock."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0

    def called(self, call: str, request_id: str, answer: Answer, seconds: float) -> None:
        """See the port."""
        del call, request_id, answer
        self.calls += 1
        self.seconds += seconds

    def upstream(self, state: str, detail: str) -> None:
        """See the port."""

    def committed(self, partition: int, changes: Changes, seconds: float) -> None:
        """See the port."""

    def ownership(self, partition: int, state: str, detail: str) -> None:
        """See the port."""
