"""A world of the roles' own: a clock that only the test moves, a ledger, a feed and a TAMS in memory.

They keep the contracts of `bridge.ports`; `tests/contracts` holds them to it beside the real ones.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
from typing_extensions import override

from bridge.core.documents import read_job
from bridge.errors import OwnershipLost
from bridge.messages import Answer, Done, Failure, JobEvent, JobRecord, Missing, Seen
from bridge.ports import Arrival, Changes, FeedReader, OpenLedger

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MONOTONIC_START = 1000.0
_TURNS_OF_THE_LOOP = 60


async def settle() -> None:
    """Let every task run until none can go on without time, or the test, moving."""
    loop = asyncio.get_running_loop()
    for _ in range(_TURNS_OF_THE_LOOP):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


class HandClock:
    """Implements `bridge.ports.Clock`; stands still until `advance`."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return MONOTONIC_START + self._passed

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        if event.is_set():
            return
        if seconds is None:
            await event.wait()
            return
        alarm = asyncio.Event()
        sleeper = (self._passed + seconds, alarm)
        self._sleepers.append(sleeper)
        self._ring()
        waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(alarm.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every moment somebody waits for."""
        await settle()
        end = self._passed + seconds
        while (due := min((until for until, _ in self._sleepers), default=end)) <= end and self._sleepers:
            self._passed = max(self._passed, due)
            self._ring()
            await settle()
        self._passed = end
        await settle()

    def _ring(self) -> None:
        for sleeper in [sleeper for sleeper in self._sleepers if sleeper[0] <= self._passed]:
            self._sleepers.remove(sleeper)
            sleeper[1].set()


class FixedChance(Random):
    """No jitter: pauses are half of what they may be at the most."""

    @override
    def random(self) -> float:
        return 0.0


@dataclass(slots=True)
class _Shelf:
    """What one partition of the fake ledger holds, all of it committed."""

    epoch: int = 0
    records: dict[str, bytes] = field(default_factory=dict)
    params: dict[str, bytes] = field(default_factory=dict)
    position: int | None = None


class FakeLedgers:
    """Implements `bridge.ports.Ledgers`; records are kept as bytes, as they are on a topic.

    `errors` are raised by the next commits, one each; while `gate` is not set, commits hang before they take effect.
    """

    def __init__(self) -> None:
        self.commits: list[Changes] = []
        self.errors: deque[Exception | None] = deque()
        self.open_errors: deque[Exception] = deque()
        self.opened: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._shelves: dict[int, _Shelf] = {}

    @property
    def events(self) -> list[JobEvent]:
        """All that were published, in order."""
        return [event for changes in self.commits for event, _ in changes.events]

    def types(self, request_id: str) -> list[str]:
        """The last words of the types of a request's events."""
        return [event.type.rpartition(".")[2] for event in self.events if event.request_id == request_id]

    def record(self, request_id: str, partition: int = 0) -> JobRecord | None:
        """A job as committed."""
        kept = self._shelf(partition).records.get(request_id)
        return None if kept is None else msgspec.json.decode(kept, type=JobRecord)

    def position(self, partition: int = 0) -> int | None:
        """The committed position."""
        return self._shelf(partition).position

    def steal(self, partition: int = 0) -> None:
        """Fence whoever has the partition open, as another process would."""
        self._shelf(partition).epoch += 1

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenLedger]:
        self.opened.append(partition)
        if self.open_errors:
            raise self.open_errors.popleft()
        shelf = self._shelf(partition)
        shelf.epoch += 1
        yield OpenLedger(
            ledger=_FakeLedger(self, shelf),
            records=[msgspec.json.decode(kept, type=JobRecord) for kept in shelf.records.values()],
            params=dict(shelf.params),
            position=shelf.position,
        )

    def _shelf(self, partition: int) -> _Shelf:
        return self._shelves.setdefault(partition, _Shelf())


class _FakeLedger:
    def __init__(self, ledgers: FakeLedgers, shelf: _Shelf) -> None:
        self._ledgers = ledgers
        self._shelf = shelf
        self._epoch = shelf.epoch

    async def commit(self, changes: Changes) -> None:
        await self._ledgers.gate.wait()
        error = self._ledgers.errors.popleft() if self._ledgers.errors else None
        if error is not None:
            raise error
        if self._shelf.epoch != self._epoch:
            message = "commit: another owner has taken the partition over"
            raise OwnershipLost(message)
        written = {
            key: None if record is None else msgspec.json.encode(record) for key, record in changes.records.items()
        }
        _keep(self._shelf.records, written)
        _keep(self._shelf.params, changes.params)
        if changes.position is not None:
            self._shelf.position = changes.position
        self._ledgers.commits.append(copy(changes))


def _keep(shelf: dict[str, bytes], changes: Mapping[str, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            shelf.pop(key, None)
        else:
            shelf[key] = value


class FakeFeed:
    """Implements `bridge.ports.Feed` over lists of records; `reader` is told by `deliver`."""

    def __init__(self) -> None:
        self.reader: FeedReader | None = None
        self.begun: dict[int, int] = {}
        self.begins: list[tuple[int, int | None]] = []
        self._topic: dict[int, list[Arrival]] = {}

    def begin(self, partition: int, position: int | None) -> None:
        self.begins.append((partition, position))
        self.begun[partition] = position or 0
        self.deliver()

    def hold(self, partition: int) -> None:
        self.begun.pop(partition, None)

    def publish(self, value: object, *, key: str | None = None, partition: int = 0) -> None:
        """Append a record to the topic, and deliver what may be."""
        log = self._topic.setdefault(partition, [])
        raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
        log.append(Arrival(offset=len(log), key=None if key is None else key.encode(), value=raw))
        self.deliver()

    def deliver(self) -> None:
        """Hand over, one at a time, what the reader wants."""
        for partition in list(self.begun):
            log = self._topic.get(partition, [])
            while self.reader is not None and self.begun[partition] < len(log) and self.reader.wants_more():
                arrival = log[self.begun[partition]]
                self.begun[partition] += 1
                self.reader.arrived(partition, [arrival])


def job_document(job_id: str, status: str, **fields: object) -> bytes:
    """What TAMS answers about a job."""
    return msgspec.json.encode({"job": {"id": job_id, "status": status, **fields}})


def seen(job_id: str, status: str, **fields: object) -> Seen:
    """The same, as an answer."""
    return Seen(read_job(job_document(job_id, status, **fields)))


@dataclass(frozen=True, slots=True)
class TamsCall:
    """One call that the fake TAMS got."""

    kind: str
    of: str
    at: float


class FakeTams:
    """Implements `bridge.ports.Tams`: idempotent, knows its jobs, ends them when the test says so.

    `answers` by kind of call come first, one for each call; a callable among them is called for the answer. While
    `gates[kind]` is not set, calls of that kind hang after they were written down.
    """

    def __init__(self, clock: HandClock | None = None) -> None:
        self.calls: list[TamsCall] = []
        self.statuses: dict[str, bytes] = {}
        self.answers: dict[str, deque[Answer | Callable[[], Answer]]] = {
            kind: deque() for kind in ("create", "look", "cancel")
        }
        self.gates = {kind: asyncio.Event() for kind in self.answers}
        for gate in self.gates.values():
            gate.set()
        self.most_at_once = 0
        self._at_once = 0
        self._clock = clock or HandClock()
        self._ids: dict[str, str] = {}

    def of(self, kind: str) -> list[TamsCall]:
        """The calls of one kind."""
        return [call for call in self.calls if call.kind == kind]

    def end(self, job_id: str, status: str = "SUCCESS", **fields: object) -> None:
        """Let a job come to this state."""
        self.statuses[job_id] = job_document(job_id, status, **fields)

    def end_all(self, status: str = "SUCCESS") -> None:
        """Let every live job come to this state."""
        for job_id, document in self.statuses.items():
            if read_job(document).status in {"CREATED", "WAITING", "RUNNING"}:
                self.end(job_id, status)

    async def create(self, tams_request_id: str, params: bytes) -> Answer:
        msgspec.json.decode(params, type=dict[str, object])
        return await self._answer("create", tams_request_id, lambda: self._created(tams_request_id))

    async def look(self, job_id: str) -> Answer:
        return await self._answer("look", job_id, lambda: self._known(job_id))

    async def cancel(self, job_id: str) -> Answer:
        return await self._answer("cancel", job_id, lambda: self._canceled(job_id))

    async def _answer(self, kind: str, of: str, usual: Callable[[], Answer]) -> Answer:
        self.calls.append(TamsCall(kind, of, self._clock.monotonic()))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.gates[kind].wait()
            told = self.answers[kind].popleft() if self.answers[kind] else usual
            return told() if callable(told) else told
        finally:
            self._at_once -= 1

    def _created(self, tams_request_id: str) -> Answer:
        job_id = self._ids.setdefault(tams_request_id, f"job-{len(self._ids) + 1}")
        self.statuses.setdefault(job_id, job_document(job_id, "CREATED"))
        return self._known(job_id)

    def _known(self, job_id: str) -> Answer:
        document = self.statuses.get(job_id)
        if document is None:
            return Missing(Failure(code="not_found", message="job not found", http_status=404))
        return Seen(read_job(document))

    def _canceled(self, job_id: str) -> Answer:
        known = self._known(job_id)
        if not isinstance(known, Seen):
            return known
        if known.view.status not in {"SUCCESS", "FAILED"}:
            self.end(job_id, "CANCELED")
        return Done()


class Listened:
    """Implements `bridge.ports.Telemetry`: writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Answer]] = []
        self.states: list[str] = []
        self.ownerships: list[tuple[int, str]] = []
        self.commits = 0

    def called(self, call: str, request_id: str, answer: Answer, seconds: float) -> None:
        assert request_id
        assert seconds >= 0
        self.calls.append((call, answer))

    def upstream(self, state: str, detail: str) -> None:
        del detail
        self.states.append(state)

    def committed(self, partition: int, changes: Changes, seconds: float) -> None:
        assert changes
        assert partition >= 0
        assert seconds >= 0
        self.commits += 1

    def ownership(self, partition: int, state: str, detail: str) -> None:
        del detail
        self.ownerships.append((partition, state))
