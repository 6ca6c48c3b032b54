"""What the API answers from: jobs, deliveries, attempts and replays as their topics add up to, held in memory.

Records are taken in one by one, in the order of each partition; one that cannot be read changes nothing. Topics are not
in step with each other, so a delivery's end may be told by `<prefix>.attempts` before `<prefix>.deliveries` drops it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from bridge.core.layouts import UNREADABLE
from bridge.core.timeline import Mark, Timeline
from bridge.messages import JobRecord
from bridge.webhook_messages import After, Attempt, Delivery, Replay, ReplayOrder

_ASIDE = "\x1f"
"""Stands in the keys of what lies beside jobs and deliveries: graphs, events, positions, replays."""

_REPLAY = "\x1freplay\x1f"
_WISHES = 1_000
"""Jobs and replays asked for here that no worker or forwarder has taken in yet."""

T = TypeVar("T")


class TopicRecord(Protocol):
    """A record of a topic, as Kafka clients give it."""

    @property
    def partition(self) -> int:
        """Of its topic."""

    @property
    def offset(self) -> int:
        """Its place there."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None for a deletion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedJob:
    """A job that was asked for here and that no worker has accepted yet."""

    request_id: str
    labels: dict[str, str]
    time: datetime


class JobsView:
    """The jobs of `<prefix>.jobs`.

    Args:
        limit: most jobs held; beyond it finished ones are forgotten first, the oldest before the others.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._jobs: Timeline[JobRecord] = Timeline()
        self._finished: dict[str, None] = {}
        self._requested: dict[str, RequestedJob] = {}
        self._partitions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def take(self, record: TopicRecord) -> None:
        """Take in a record of `<prefix>.jobs`."""
        key = _text(record.key)
        if _ASIDE in key:
            return
        job = None if record.value is None else _decoded(record.value, JobRecord)
        if job is not None:
            self._keep(job, record.partition)
        elif record.value is None:
            self._forget(key)

    def requested(self, request_id: str, labels: dict[str, str], time: datetime) -> None:
        """A job was asked for here: it is shown until its record comes."""
        if self._jobs.get(request_id) is None:
            _bounded(self._requested, _WISHES)
            self._requested[request_id] = RequestedJob(request_id=request_id, labels=labels, time=time)

    def get(self, request_id: str) -> JobRecord | RequestedJob | None:
        """One job."""
        return self._jobs.get(request_id) or self._requested.get(request_id)

    def partition_of(self, request_id: str) -> int | None:
        """Where a worker holds the job; None if it is not held."""
        return self._partitions.get(request_id)

    def newest_first(
        self, *, before: Mark | None, since: datetime | None, until: datetime | None
    ) -> Iterator[tuple[Mark, JobRecord]]:
        """The jobs that workers have accepted, the last ones first."""
        return self._jobs.newest_first(before=before, since=since, until=until)

    def _keep(self, job: JobRecord, partition: int) -> None:
        request_id = job.request_id
        self._partitions[request_id] = partition
        self._requested.pop(request_id, None)
        self._finished.pop(request_id, None)
        if job.phase.is_terminal:
            self._finished[request_id] = None
        self._jobs.put(request_id, job.accepted_at, job)
        if len(self._jobs) > self._limit:
            self._forget(next(iter(self._finished), None) or self._jobs.first_in())

    def _forget(self, request_id: str) -> None:
        self._finished.pop(request_id, None)
        self._partitions.pop(request_id, None)
        self._jobs.drop(request_id)


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    ENDED = "ended"


STATES: dict[After, DeliveryState] = {
    After.WAITING: DeliveryState.PENDING,
    After.DELIVERED: DeliveryState.DELIVERED,
    After.DEAD: DeliveryState.DEAD,
    After.ENDED: DeliveryState.ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDelivery:
    """A delivery, and what became of it.

    Args:
        delivery: as last told.
        state: where it stands.
        dead_reason, dead_at: why and when it was given up, if it was.
    """

    delivery: Delivery
    state: DeliveryState
    dead_reason: str | None = None
    dead_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeenAttempt:
    """An attempt, and where its record lies: `<partition>-<offset>`, the same for every reader."""

    id: str
    attempt: Attempt


class _Dead(msgspec.Struct):
    """A `DeadDelivery` without the event."""

    delivery: Delivery
    reason: str
    time: datetime


class DeliveriesView:
    """The deliveries that are pending or have ended lately, their attempts, and the replays.

    Args:
        history: most attempts held, and most deliveries that have ended.
    """

    def __init__(self, *, history: int) -> None:
        self._history = history
        self._pending: dict[str, Delivery] = {}
        self._ended: dict[str, SeenDelivery] = {}
        self._all: Timeline[str] = Timeline()
        self._by_endpoint: dict[str, Timeline[str]] = {}
        self._by_request: dict[str, set[str]] = {}
        self._pending_of: dict[str, int] = {}
        self._attempts: Timeline[SeenAttempt] = Timeline()
        self._replays: Timeline[Replay] = Timeline()
        self._asked: dict[str, ReplayOrder] = {}

    def take_ledger(self, record: TopicRecord) -> None:
        """Take in a record of `<prefix>.deliveries`."""
        key = _text(record.key)
        if _REPLAY in key:
            self._take_replay(key.rpartition(_REPLAY)[2], record.value)
        elif _ASIDE not in key:
            if record.value is None:
                self._set_pending(key, None)
            elif (delivery := _decoded(record.value, Delivery)) is not None:
                self._set_pending(key, delivery)

    def take_attempt(self, record: TopicRecord) -> None:
        """Take in a record of `<prefix>.attempts`."""
        attempt = _decoded(record.value or b"", Attempt)
        if attempt is None:
            return
        if attempt.after is not After.WAITING:
            self._end(SeenDelivery(delivery=attempt.delivery, state=STATES[attempt.after]))
        seen_id = f"{record.partition}-{record.offset}"
        slim = replace(attempt, delivery=replace(attempt.delivery, attempts=()))
        self._attempts.put(seen_id, attempt.attempt.time, SeenAttempt(seen_id, slim))
        if len(self._attempts) > self._history:
            self._attempts.drop(self._attempts.first_in())

    def take_dead(self, record: TopicRecord) -> None:
        """Take in a record of `<prefix>.deliveries.dead`."""
        dead = _decoded(record.value or b"", _Dead)
        if dead is not None:
            self._end(
                SeenDelivery(
                    delivery=dead.delivery, state=DeliveryState.DEAD, dead_reason=dead.reason, dead_at=dead.time
                )
            )

    def pending_of(self, endpoint_id: str) -> int:
        """How many deliveries wait for an endpoint."""
        return self._pending_of.get(endpoint_id, 0)

    def get(self, delivery_id: str) -> SeenDelivery | None:
        """One delivery, if it is pending or ended lately."""
        pending, ended = self._pending.get(delivery_id), self._ended.get(delivery_id)
        if pending is not None and (ended is None or _version(ended.delivery) < _version(pending)):
            return SeenDelivery(delivery=pending, state=DeliveryState.PENDING)
        return ended

    def newest_first(
        self,
        *,
        before: Mark | None,
        since: datetime | None,
        until: datetime | None,
        endpoint_id: str | None = None,
        request_id: str | None = None,
    ) -> Iterator[tuple[Mark, SeenDelivery]]:
        """The deliveries by the time they were taken in, the last ones first."""
        index = self._all if endpoint_id is None else self._by_endpoint.get(endpoint_id, Timeline())
        if request_id is not None:
            index = self._of_request(request_id)
        for mark, delivery_id in index.newest_first(before=before, since=since, until=until):
            seen = self.get(delivery_id)
            if seen is not None and endpoint_id in {None, seen.delivery.endpoint_id}:
                yield mark, seen

    def attempt(self, attempt_id: str) -> SeenAttempt | None:
        """One attempt."""
        return self._attempts.get(attempt_id)

    def attempts(
        self, *, before: Mark | None, since: datetime | None, until: datetime | None
    ) -> Iterator[tuple[Mark, SeenAttempt]]:
        """The attempts by the time they began, the last ones first."""
        return self._attempts.newest_first(before=before, since=since, until=until)

    def asked_to_replay(self, order: ReplayOrder) -> None:
        """A replay was asked for here: it is shown until its record comes."""
        if self._replays.get(order.replay_id) is None:
            _bounded(self._asked, _WISHES)
            self._asked[order.replay_id] = order

    def replay(self, replay_id: str) -> Replay | ReplayOrder | None:
        """One replay; the mere order while no forwarder has taken it in."""
        return self._replays.get(replay_id) or self._asked.get(replay_id)

    def replays(self, *, before: Mark | None) -> Iterator[tuple[Mark, Replay | ReplayOrder]]:
        """The replays by the time they were asked for, the last ones first."""
        if not self._asked:
            yield from self._replays.newest_first(before=before)
            return
        both: Timeline[Replay | ReplayOrder] = Timeline()
        for order in self._asked.values():
            both.put(order.replay_id, order.created, order)
        for (time, replay_id), replay in self._replays.newest_first(before=before):
            both.put(replay_id, time, replay)
        yield from both.newest_first(before=before)

    def _take_replay(self, replay_id: str, value: bytes | None) -> None:
        if value is None:
            self._replays.drop(replay_id)
        elif (replay := _decoded(value, Replay)) is not None:
            self._asked.pop(replay_id, None)
            self._replays.put(replay_id, replay.order.created, replay)

    def _set_pending(self, delivery_id: str, delivery: Delivery | None) -> None:
        former = self._pending.pop(delivery_id, None)
        if former is not None:
            left = self._pending_of[former.endpoint_id] - 1
            self._pending_of[former.endpoint_id] = left
            if not left:
                del self._pending_of[former.endpoint_id]
        if delivery is not None:
            self._pending[delivery_id] = delivery
            self._pending_of[delivery.endpoint_id] = self._pending_of.get(delivery.endpoint_id, 0) + 1
        self._place(delivery or former)

    def _end(self, seen: SeenDelivery) -> None:
        """A delivery has ended; its attempt and its dead letter may both say so, in any order."""
        delivery_id = seen.delivery.id
        former = self._ended.pop(delivery_id, None)
        if former is not None and _precedes(seen, former):
            seen = former
        self._ended[delivery_id] = seen
        self._place(seen.delivery)
        if len(self._ended) > self._history:
            oldest = self._ended.pop(next(iter(self._ended)))
            self._place(oldest.delivery)

    def _place(self, delivery: Delivery | None) -> None:
        """Put a delivery where lists find it, or take it out of them if nothing is known of it any more."""
        if delivery is None:
            return
        delivery_id = delivery.id
        seen = self.get(delivery_id)
        of_endpoint = self._by_endpoint.setdefault(delivery.endpoint_id, Timeline())
        of_request = self._by_request.setdefault(delivery.request_id, set())
        if seen is not None:
            self._all.put(delivery_id, seen.delivery.ordered, delivery_id)
            of_endpoint.put(delivery_id, seen.delivery.ordered, delivery_id)
            of_request.add(delivery_id)
            return
        self._all.drop(delivery_id)
        of_endpoint.drop(delivery_id)
        of_request.discard(delivery_id)
        if not of_endpoint:
            del self._by_endpoint[delivery.endpoint_id]
        if not of_request:
            del self._by_request[delivery.request_id]

    def _of_request(self, request_id: str) -> Timeline[str]:
        found: Timeline[str] = Timeline()
        for delivery_id in self._by_request.get(request_id, ()):
            seen = self.get(delivery_id)
            if seen is not None:
                found.put(delivery_id, seen.delivery.ordered, delivery_id)
        return found


def _version(delivery: Delivery) -> tuple[datetime, datetime]:
    """Grows with every attempt, and with every time the delivery is ordered anew."""
    return delivery.ordered, delivery.attempts[-1].time if delivery.attempts else delivery.ordered


def _precedes(seen: SeenDelivery, former: SeenDelivery) -> bool:
    """Whether something else is known later, or the same with its reason."""
    return (_version(seen.delivery), seen.dead_at is not None) < (
        _version(former.delivery),
        former.dead_at is not None,
    )


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")


def _decoded(value: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(value, type=kind)
    except UNREADABLE:
        return None


def _bounded(kept: dict[str, T], limit: int) -> None:
    """Make room for one more."""
    if len(kept) >= limit:
        del kept[next(iter(kept))]
