"""What the roles need of the world, as small protocols; `bridge.adapters` implements, `bridge.runtime` joins them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Protocol

from bridge.messages import Answer, DeadLetterReason, JobEvent, JobRecord
from bridge.webhook_messages import Order


class Clock(Protocol):
    """The one source of time and of pauses."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC: for what is written down and compared across processes."""

    def monotonic(self) -> float:
        """Seconds that never go back: for rates, leases and pauses within this process."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Return once `event` is set or `seconds` have passed (None: wait for the event alone)."""


class Tams(Protocol):
    """The upstream; none of these raises for what TAMS or the network did."""

    async def create(self, tams_request_id: str, params: bytes) -> Answer:
        """Create a workflow job from `params` (a JSON object); safe to repeat with the same `tams_request_id`."""

    async def look(self, job_id: str) -> Answer:
        """Read a job."""

    async def cancel(self, job_id: str) -> Answer:
        """Ask TAMS to cancel a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One record of an input topic, as received.

    Args:
        offset: its place in the partition.
        key, value: bytes, or None where the record has none.
        headers: in order; a name may occur twice, a value may be None.
    """

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be worked on, with the reason and the time; it is parked as received."""

    arrival: Arrival
    reason: DeadLetterReason
    detail: str
    time: datetime


@dataclass(slots=True)
class Changes:
    """What one step wants written, in one transaction: all of it or nothing.

    Args:
        records: new state by request id; None means forgotten.
        params: graphs to keep (bytes) or to drop (None), by request id.
        events: in the order they happened, each with the job after it.
        orders: which of the events are to be delivered to whom.
        dead_letters: records to park.
        position: offset of the next request to read, if it moved.
    """

    records: dict[str, JobRecord | None] = field(default_factory=dict)
    params: dict[str, bytes | None] = field(default_factory=dict)
    events: list[tuple[JobEvent, JobRecord]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    position: int | None = None

    def __bool__(self) -> bool:
        """True when there is something to write."""
        return bool(self.records or self.params or self.dead_letters or self.position is not None)


class Ledger(Protocol):
    """The ledger of one partition, held by the one owner that may write it."""

    async def commit(self, changes: Changes) -> None:
        """Write state, events, dead letters and position in one transaction.

        Raises:
            OwnershipLost: another owner has taken over; nothing was written.
            LedgerUnavailable: it failed, or its outcome is unknown; taking the partition over again will tell.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """A ledger partition, fenced and replayed.

    Args:
        ledger: to write it.
        records: the latest state of each job.
        params: graphs of the jobs that have not ended.
        position: offset of the next request to read; None if none was ever read.
    """

    ledger: Ledger
    records: Collection[JobRecord]
    params: Mapping[str, bytes]
    position: int | None


class Ledgers(Protocol):
    """All partitions of the ledger."""

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        """Take over a partition: fence its former owner, then replay it.

        Raises (on entering):
            OwnershipLost: somebody took it over in the meantime.
            LedgerUnavailable: the broker did not answer in time.
        """


class Feed(Protocol):
    """An input topic, as the group gives it to this process."""

    def begin(self, partition: int, position: int | None) -> None:
        """Start to deliver an assigned partition from this offset (None: from its start)."""

    def hold(self, partition: int) -> None:
        """Deliver nothing of a partition until `begin` is called again."""


class FeedReader(Protocol):
    """Who reads an input topic; called by the feed."""

    def assigned(self, partitions: Collection[int]) -> None:
        """The group gives these partitions to this process; nothing is delivered before `begin`."""

    async def revoked(self) -> None:
        """The group takes all partitions back; must return within a few seconds."""

    def moved(self, partition: int, position: int) -> None:
        """The position asked for with `begin` does not exist: what arrives begins at this one."""

    def arrived(self, partition: int, arrivals: Sequence[Arrival]) -> None:
        """Records of one partition, in order."""

    def wants_more(self) -> bool:
        """False while records had better stay in Kafka."""


class RateShare(Protocol):
    """The part of the rate that is this process's own, which follows from what it and the others could use."""

    def set_demand(self, load: int, wanted: int) -> None:
        """Say what could be used; cheap, to be called whenever it may have changed.

        Args:
            load: how much work there is, on the scale all processes use; 0 if none.
            wanted: how many calls could be made at once.
        """


class WholeRate:
    """Implements `RateShare` where nobody else is to be considered."""

    def set_demand(self, load: int, wanted: int) -> None:
        """See `RateShare`; without effect."""


class Telemetry(Protocol):
    """Who is told what happened, for people: one wide event and the metrics for each."""

    def called(self, call: str, request_id: str, answer: Answer, seconds: float) -> None:
        """A call to TAMS has ended."""

    def upstream(self, state: str, detail: str) -> None:
        """TAMS has become `reachable`, `unreachable` or `unauthorized`."""

    def committed(self, partition: int, changes: Changes, seconds: float) -> None:
        """A transaction was committed."""

    def ownership(self, partition: int, state: str, detail: str) -> None:
        """A partition was `opened`, `closed`, `lost` to another process, or is `unavailable`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every part of a process shares.

    Args:
        clock: time.
        chance: randomness, for jitter.
        telemetry: who is told.
    """

    clock: Clock
    chance: Random
    telemetry: Telemetry
