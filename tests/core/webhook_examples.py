"""Endpoints, orders, answers, and a dispatcher with its clocks and its ledger, that tests of webhooks begin with."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import DispatchPartition, DispatchPolicy, Moment, Send
from bridge.core.health import HealthPolicy
from bridge.core.registry import Registry, endpoint_key, status_key, tenant_key
from bridge.core.schedule import BackOff
from bridge.messages import EventType, JobEvent
from bridge.ports import Arrival, DeadLetter
from bridge.webhook_messages import (
    After,
    Attempt,
    DeadDelivery,
    Delivery,
    DispatchRecord,
    Endpoint,
    EndpointStatus,
    InlineWebhook,
    Notice,
    Order,
    Replay,
    ReplayOrder,
    SealedSecret,
    TenantSecrets,
)
from bridge.webhook_ports import DispatchChanges, NoResponse, Response
from tests.core.examples import NOW, SECOND

K = TypeVar("K")
V = TypeVar("V")

NEVER = float("inf")
SCHEDULE = (10.0, 100.0)
"""Three attempts."""

POLICY = DispatchPolicy(
    max_pending=10,
    max_age=timedelta(days=7),
    longest_pause=timedelta(minutes=10),
    breaker_threshold=3,
    breaker=BackOff(initial=4 * SECOND, limit=16 * SECOND),
    disabled_probe=timedelta(hours=1),
    health=HealthPolicy(warn_after=timedelta(days=1), disable_after=timedelta(days=5)),
)

DELIVERED = Response(status=204, headers={}, body=b"")
FAILED = Response(status=500, headers={}, body=b"out of order")
GONE = Response(status=410, headers={}, body=b"")
THROTTLED = Response(status=429, headers={"retry-after": "60"}, body=b"")
NO_RESPONSE = NoResponse(error="no answer within 15 s")
BLOCKED = NoResponse(error="10.0.0.1 is a private address", blocked=True)
UNSENDABLE = Unsendable("the tenant has no secret: make one", timedelta(seconds=60))


def at(seconds: float = 0.0) -> Moment:
    """The time on both clocks, after so many seconds."""
    return Moment(NOW + timedelta(seconds=seconds), 1000.0 + seconds)


def endpoint(endpoint_id: str = "ep_a", /, **fields: object) -> Endpoint:
    """A registered endpoint that wants all events of jobs."""
    known = {"url": f"https://{endpoint_id}.example/hook", "retry_schedule_s": SCHEDULE, "created": NOW, "changed": NOW}
    return msgspec.convert({"id": endpoint_id, **known, **fields}, Endpoint)


def secrets(tenant: str, sealed: str = "sealed") -> TenantSecrets:
    """What signs a tenant's inline webhooks."""
    return TenantSecrets(tenant=tenant, secrets=(SealedSecret(sealed=sealed, created=NOW),), changed=NOW)


def put(registry: Registry, *records: Endpoint | EndpointStatus | TenantSecrets) -> None:
    """Write to the registry, as its topic would."""
    for record in records:
        registry.apply(_key_of(record), msgspec.json.encode(record))


def _key_of(record: Endpoint | EndpointStatus | TenantSecrets) -> bytes:
    match record:
        case Endpoint():
            return endpoint_key(record.id)
        case EndpointStatus():
            return status_key(record.endpoint_id)
        case TenantSecrets():
            return tenant_key(record.tenant)


def registry_of(*records: Endpoint | EndpointStatus | TenantSecrets) -> Registry:
    """A registry that holds these."""
    registry = Registry()
    put(registry, *records)
    return registry


def event(job: str = "a", sequence: int = 1, *, type_: EventType = EventType.SUCCESS, **labels: str) -> JobEvent:
    """An event of a job, a second after the one before."""
    return JobEvent(
        id=f"{job}.{sequence}",
        type=type_,
        time=NOW + sequence * SECOND,
        request_id=job,
        sequence=sequence,
        attempt=1,
        labels=labels,
    )


def value_of(told: JobEvent) -> bytes:
    """The event as it lies on a result topic."""
    return msgspec.json.encode(told)


def order(
    endpoint_id: str = "ep_a",
    job: str = "a",
    sequence: int = 1,
    *,
    type_: EventType = EventType.SUCCESS,
    inline: InlineWebhook | None = None,
) -> Order:
    """An event of a job that is to be delivered."""
    told = event(job, sequence, type_=type_)
    return Order(
        endpoint_id=endpoint_id,
        event_id=told.id,
        type=told.type,
        request_id=job,
        sequence=sequence,
        time=told.time,
        event=msgspec.Raw(value_of(told)),
        inline=inline,
    )


def delivery(endpoint_id: str = "ep_a", job: str = "a", sequence: int = 1, **fields: object) -> Delivery:
    """A delivery that was ordered now."""
    placed = order(endpoint_id, job, sequence)
    known = {name: getattr(placed, name) for name in ("event_id", "type", "request_id", "sequence", "time", "inline")}
    return msgspec.convert({"endpoint_id": endpoint_id, "ordered": NOW, **known, **fields}, Delivery)


def arrival(record: DispatchRecord, offset: int = 0) -> Arrival:
    """A record of the dispatch topic."""
    return Arrival(offset=offset, key=record.endpoint_id.encode(), value=msgspec.json.encode(record))


def replay_order(replay_id: str = "rp_1", /, **fields: object) -> ReplayOrder:
    """A wish for all events of the day around now."""
    day = timedelta(days=1)
    known = {"endpoint_id": "ep_a", "since": NOW - day, "until": NOW + day, "created": NOW}
    return msgspec.convert({"replay_id": replay_id, **known, **fields}, ReplayOrder)


@dataclass
class LedgerModel:
    """What the topics hold after some transactions: state by key, and what was told in order."""

    deliveries: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, bytes] = field(default_factory=dict)
    replays: dict[tuple[str, str], bytes] = field(default_factory=dict)
    position: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    dead: list[DeadDelivery] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    statuses: list[EndpointStatus] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def commit(self, changes: DispatchChanges) -> None:
        """One transaction; only what is there is dropped, and events never change."""
        _apply(self.deliveries, changes.deliveries, msgspec.json.encode)
        for key, event in changes.events.items():
            assert event in {None, self.events.get(key, event)}
        _apply(self.events, changes.events, bytes)
        _apply(self.replays, changes.replays, msgspec.json.encode)
        if changes.position is not None:
            self.position = changes.position
        self.attempts += changes.attempts
        self.dead += changes.dead
        self.notices += changes.notices
        self.statuses += changes.statuses.values()
        self.dead_letters += changes.dead_letters
        assert self.deliveries.keys() == self.events.keys()

    def restored(self, registry: Registry, moment: Moment, policy: DispatchPolicy = POLICY) -> DispatchPartition:
        """The partition as its next owner holds it."""
        partition = DispatchPartition(number=0, registry=registry, policy=policy)
        pending = [
            (msgspec.json.decode(value, type=Delivery), self.events[key]) for key, value in self.deliveries.items()
        ]
        replays = [msgspec.json.decode(value, type=Replay) for value in self.replays.values()]
        partition.restore(pending, replays, self.position, moment)
        return partition

    def ends(self) -> list[tuple[str, After]]:
        """Which deliveries have ended, and how."""
        return [(each.delivery.id, each.after) for each in self.attempts if each.after is not After.WAITING]


def _apply(kept: dict[K, bytes], changes: Mapping[K, V | None], encode: Callable[[V], bytes]) -> None:
    for key, value in changes.items():
        if value is None:
            del kept[key]
        else:
            kept[key] = encode(value)


class Desk:
    """A dispatcher at work: its partition, its clocks, its input and its ledger; what the forwarder does around it."""

    def __init__(self, *records: Endpoint | EndpointStatus | TenantSecrets, policy: DispatchPolicy = POLICY) -> None:
        self.registry = registry_of(*records)
        self.policy = policy
        self.ledger = LedgerModel()
        self.log: list[Arrival] = []
        self.now = at()
        self.partition = self.ledger.restored(self.registry, self.now, policy)

    def place(self, *records: DispatchRecord) -> None:
        """Write to the dispatch topic and read it."""
        for record in records:
            self.log.append(arrival(record, len(self.log)))
            self.partition.arrive(self.log[-1], self.now)

    def put(self, *records: Endpoint | EndpointStatus) -> None:
        """Write to the registry, and tell of it."""
        for record in records:
            put(self.registry, record)
            self.partition.endpoint_changed(record.id if isinstance(record, Endpoint) else record.endpoint_id, self.now)

    def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint, and tell of it."""
        for key in (endpoint_key(endpoint_id), status_key(endpoint_id)):
            changed = self.registry.apply(key, None)
            assert changed == endpoint_id
            self.partition.endpoint_changed(changed, self.now)

    def passes(self, seconds: float, *, told: bool = True) -> None:
        """Time goes on, on both clocks."""
        self.now = Moment(self.now.now + timedelta(seconds=seconds), self.now.monotonic + seconds)
        if told:
            self.partition.time_passed(self.now)

    def waits(self) -> float:
        """Seconds until something may be sent."""
        return self.partition.next_send_at() - self.now.monotonic

    def send(self) -> list[Send]:
        """Begin every POST that may begin now."""
        begun: list[Send] = []
        while self.partition.next_send_at() <= self.now.monotonic:
            begun.append(self.partition.take_send(self.now))
        return begun

    def send_one(self) -> Send:
        """Begin the one POST that may begin now."""
        (begun,) = self.send()
        return begun

    def answer(self, send: Send, answer: Response | NoResponse | Unsendable = DELIVERED, chance: float = 0.5) -> None:
        """A POST has ended."""
        self.partition.sent(send, answer, None, self.now, chance)

    def answer_all(self, sends: Iterable[Send], answer: Response | NoResponse | Unsendable = DELIVERED) -> None:
        """Some POSTs have ended in the same way."""
        for send in sends:
            self.answer(send, answer)

    def next_send(self) -> Send:
        """Wait until something may be sent, and begin it."""
        assert self.partition.next_send_at() < NEVER
        self.passes(max(0.0, self.waits()))
        return self.partition.take_send(self.now)

    def commit(self) -> DispatchChanges:
        """Write down what has happened."""
        changes = self.partition.journal.take()
        self.ledger.commit(changes)
        return changes

    def crash(self, seconds: float = 0.0) -> None:
        """The owner dies; the next one restores what was written and reads on from there."""
        self.passes(seconds, told=False)
        self.partition = self.ledger.restored(self.registry, self.now, self.policy)
        for record in self.log:
            self.partition.arrive(record, self.now)


def names(sends: Iterable[Send]) -> list[str]:
    """Which deliveries are sent."""
    return [send.delivery.id for send in sends]


def with_policy(**changes: object) -> DispatchPolicy:
    """The policy of the tests but for these."""
    return replace(POLICY, **changes)  # type: ignore[arg-type]  # any of its fields


def instant(seconds: float) -> datetime:
    """The wall clock after so many seconds."""
    return NOW + timedelta(seconds=seconds)
