"""Deliveries stand whatever their topics hold, the registry says of an endpoint, and its receiver answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from bridge.adapters.kafka.deliveries import DispatchReplay, KafkaDispatchLedger
from bridge.adapters.kafka.topics import Topics
from bridge.core.deliveries import Unsendable, judge
from bridge.core.dispatch import DispatchPartition, Moment, Send
from bridge.core.posts import body_of, exchange_of
from bridge.core.registry import Registry, endpoint_key, status_key
from bridge.errors import LedgerUnavailable
from bridge.ports import Arrival
from bridge.settings import KafkaSettings, TopicSettings
from bridge.webhook_messages import (
    Delivery,
    EndpointStatus,
    InlineWebhook,
    Ordering,
    Outcome,
    Replay,
    ReplayCancel,
    ReplayState,
)
from bridge.webhook_ports import NoResponse, Response
from tests.api.examples import tried
from tests.core.examples import NOW, SECOND
from tests.core.webhook_examples import (
    NO_RESPONSE,
    POLICY,
    UNSENDABLE,
    at,
    delivery,
    endpoint,
    event,
    order,
    registry_of,
    replay_order,
    value_of,
)
from tests.fuzz.answers import RETRY_AFTER, STATUSES
from tests.fuzz.campaign import check_words, fuzz
from tests.fuzz.job_world import check_sendable
from tests.fuzz.mutations import (
    TEXTS,
    Log,
    documents,
    hostile_headers,
    make_log,
    spoilt_bytes,
    spoilt_document,
    spoilt_key,
)

INLINE = InlineWebhook(url="https://acme.example/in?token=t", tenant="acme")
ORDERS = documents(
    order(),
    order("ep_b", "b", 2),
    order("in_1", "c", 1, inline=INLINE),
    replay_order(),
    replay_order("rp_2", event_id="a.1", failed_only=True),
    ReplayCancel(replay_id="rp_1", endpoint_id="ep_a"),
)
ENDPOINTS = documents(
    endpoint(),
    endpoint("ep_b", rate=0.5, max_in_flight=1, ordering=Ordering.JOB, drop_superseded=True, labels={"a": "b"}),
    endpoint("ep_a", paused=True, tenant="acme", retry_schedule_s=(), timeout_s=1.0),
    endpoint("ep_a", epoch=2),
)
ENDPOINT_KEYS = (endpoint_key("ep_a"), endpoint_key("ep_b"), endpoint_key("ep_a"), b"\x1ftenant\x1facme", b"\xff")
STATUS_KEYS = (status_key("ep_a"), status_key("ep_b"))
STATUS = EndpointStatus(endpoint_id="ep_a", epoch=1, changed=NOW, failing_since=NOW - 900_000 * SECOND, warned=True)
OF_STATUS = documents(
    STATUS,
    msgspec.structs.replace(STATUS, disabled_at=NOW, disabled_reason="gone"),
    msgspec.structs.replace(STATUS, disabled_at=NOW, disabled_reason="failing", last_error="no"),
)
HEADERS = {"retry-after": RETRY_AFTER, "set-cookie": ("a=b",), "webhook-allowed-origin": ("*",)}
CANARY = "canary-4711"


@dataclass(frozen=True, slots=True)
class Told:
    """A record of the registry."""

    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What the next POST comes to."""

    answer: Response | NoResponse | Unsendable


@dataclass(frozen=True, slots=True)
class Passes:
    """Time passes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Dies:
    """All is written down, and the owner dies."""


Happening = Arrival | Told | Answered | Passes | Dies


class Ledger:
    """A deliveries partition as bytes by key, and what was parked."""

    def __init__(self) -> None:
        names = Topics(KafkaSettings(), TopicSettings()).names
        told = (names.attempts, names.dead_deliveries, names.notices, names.dead_letter)
        self._ledger = KafkaDispatchLedger(
            None,  # type: ignore[arg-type]  # nothing is sent
            names,
            dict.fromkeys(told, 3),
            0,
        )
        self._names = names
        self.state: dict[bytes, bytes] = {}
        self.parked: list[bytes | None] = []
        self.attempts = 0

    def commit(self, partition: DispatchPartition) -> None:
        records = list(self._ledger._records(partition.journal.take()))
        check_sendable(records)
        for record in records:
            if record.topic == self._names.deliveries:
                self._keep(record.key or b"", record.value)
            elif record.topic == self._names.dead_letter:
                self.parked.append(record.value)
            elif record.topic == self._names.attempts:
                self.attempts += 1

    def _keep(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.state.pop(key, None)
        else:
            self.state[key] = value

    def opened(self, log: Log = ()) -> tuple[list[tuple[Delivery, bytes]], list[Replay], int]:
        """As `DispatchOwner`s are given it."""
        replay = DispatchReplay()
        for key, value in log or self.state.items():
            replay.add(key, value)
        opened = replay.opened(self._ledger)
        pending = [(each, opened.events[each.id]) for each in opened.deliveries if each.id in opened.events]
        return pending, list(opened.replays), opened.position or 0


class World:
    """A dispatcher and all around it."""

    def __init__(self, log: Log = ()) -> None:
        self.registry = registry_of(endpoint(), endpoint("ep_b", ordering=Ordering.JOB))
        self.ledger = Ledger()
        self.now = at()
        self.log: list[Arrival] = []
        self.partition = self._restored(log)

    def happens(self, happening: Happening) -> None:
        match happening:
            case Arrival():
                self.log.append(happening)
                self.partition.arrive(happening, self.now)
            case Told(key, value):
                changed = self.registry.apply(key, value)
                if changed is None:
                    self.partition.tenant_changed(self.now)
                else:
                    self.partition.endpoint_changed(changed, self.now)
            case Answered(answer):
                self._send(answer)
            case Passes(seconds):
                self.now = Moment(self.now.now + timedelta(seconds=seconds), self.now.monotonic + seconds)
                self.partition.time_passed(self.now)
            case Dies():
                self.ledger.commit(self.partition)
                self.partition = self._restored()
                for arrival in self.log:
                    self.partition.arrive(arrival, self.now)

    def replays_go_on(self, values: Sequence[bytes]) -> None:
        """Every replay begins, and reads some events of the past."""
        for replay in self.partition.replays.running():
            replay_id, endpoint_id = replay.order.replay_id, replay.order.endpoint_id
            self.partition.room(endpoint_id)
            self.partition.replay_begun(replay_id, ({"t-0": 0}, {"t-0": 2}), self.now)
            self.partition.replay_read(replay_id, list(values), {"t-0": 1}, self.now)

    def _send(self, answer: Response | NoResponse | Unsendable) -> None:
        if self.partition.next_send_at() > self.now.monotonic:
            return
        send = self.partition.take_send(self.now)
        exchange = _exchange(send, answer)
        self.partition.sent(send, answer, exchange, self.now, 0.5)

    def _restored(self, log: Log = ()) -> DispatchPartition:
        partition = DispatchPartition(number=0, registry=self.registry, policy=POLICY)
        pending, replays, position = self.ledger.opened(log)
        partition.restore(pending, replays, position, self.now)
        return partition


def _exchange(send: Send, answer: Response | NoResponse | Unsendable) -> Any:
    if isinstance(answer, Unsendable):
        return None
    body = body_of(send.delivery, send.event, source="/tams-bridge")
    assert body.endswith(b',"data":%s}' % send.event), "the event is sent as it came"
    timedelta(seconds=send.endpoint.timeout_s)
    custom = {"x-token": CANARY}
    exchange = exchange_of({**custom, "webhook-signature": f"v1,{CANARY}"}, custom, answer)
    assert CANARY not in repr(exchange)
    return exchange


# ------------------------------------------------------------------------------------------------------- what happens
def make_answer(chance: Random) -> Response | NoResponse | Unsendable:
    """What a POST comes to."""
    if chance.random() < 0.1:
        return chance.choice((NO_RESPONSE, UNSENDABLE, NoResponse(error=chance.choice(TEXTS))))
    headers: Mapping[str, str] = hostile_headers(chance, tuple(HEADERS), HEADERS)
    body = spoilt_bytes(chance, chance.choice((b"", b"ok", b"\xff\xfe", b"x" * 5_000)))
    return Response(status=chance.choice((*STATUSES, 410, 429, 503)), headers=headers, body=body)


def make_dispatch(chance: Random, offset: int = 0) -> Arrival:
    """A record of the dispatch topic."""
    value = None if chance.random() < 0.02 else spoilt_document(chance, ORDERS)
    return Arrival(offset=offset, key=spoilt_key(chance, (b"ep_a", b"ep_b", b"in_1")), value=value)


def make_registry_record(chance: Random) -> Told:
    """A record of the registry."""
    about_status = chance.random() < 0.5
    value = None if chance.random() < 0.1 else spoilt_document(chance, OF_STATUS if about_status else ENDPOINTS)
    return Told(spoilt_key(chance, STATUS_KEYS if about_status else ENDPOINT_KEYS), value)


def make_happenings(chance: Random) -> Sequence[Happening]:
    """Orders, records of the registry and answers, good and bad, and what may happen between."""
    happenings: list[Happening] = []
    offset = 0
    for _ in range(chance.randint(4, 24)):
        match chance.random():
            case luck if luck < 0.35:
                happenings.append(make_dispatch(chance, offset))
                offset += 1
            case luck if luck < 0.55:
                happenings.append(make_registry_record(chance))
            case luck if luck < 0.85:
                happenings.append(Answered(make_answer(chance)))
            case luck if luck < 0.95:
                happenings.append(Passes(chance.choice((0.5, 5.0, 40.0, 4_000.0, 900_000.0))))
            case _:
                happenings.append(Dies())
    return happenings


def counted(happenings: Sequence[Happening]) -> int:
    """How many of them are inputs."""
    return sum(isinstance(each, Arrival | Told | Answered) for each in happenings)


def check_dispatcher(happenings: Sequence[Happening]) -> None:
    world = World()
    for happening in happenings:
        world.happens(happening)
    world.replays_go_on([value_of(event()), b"{}", b""])
    _check_last_order(world, len(world.log))
    world.happens(Dies())
    world.happens(Passes(2_000_000.0))
    world.ledger.commit(world.partition)
    unreadable = [each.value for each in world.log if not _is_readable(each.value)]
    assert world.ledger.parked == unreadable, "each bad record is parked once, as it came"


def _check_last_order(world: World, offset: int) -> None:
    """A good order after all that goes out, or waits for a reason."""
    world.happens(Told(endpoint_key("ep_last"), msgspec.json.encode(endpoint("ep_last"))))
    last = order("ep_last", "the last one", 1)
    world.happens(Arrival(offset=offset, key=b"ep_last", value=msgspec.json.encode(last)))
    while world.partition.next_send_at() <= world.now.monotonic:
        send = world.partition.take_send(world.now)
        world.partition.sent(send, Response(status=204, headers={}, body=b""), None, world.now, 0.5)
        if send.delivery.endpoint_id == "ep_last":
            return
    raise AssertionError("the last order was not offered")


def _is_readable(value: bytes | None) -> bool:
    partition = DispatchPartition(number=0, registry=Registry(), policy=POLICY)
    partition.arrive(Arrival(offset=0, key=b"k", value=value), at())
    return not partition.journal.take().dead_letters


def test_a_dispatcher_stands_any_order_any_endpoint_and_any_answer() -> None:
    fuzz("deliveries of a partition", make_happenings, check_dispatcher, size=counted)


# ---------------------------------------------------------------------------------------------------------- the ledger
_PENDING = (
    delivery(),
    tried(delivery("ep_b", "b", 2, next_at=NOW + SECOND), Outcome.FAILED),
    tried(delivery("in_1", "c", 1, inline=msgspec.to_builtins(INLINE)), Outcome.THROTTLED),
    delivery("ep_gone", "d", 3, replay_id="rp_1"),
)
KEPT = documents(
    *_PENDING,
    Replay(order=replay_order(), positions={"t-0": 5}, ends={"t-0": 10}, scanned=5, changed=NOW),
    Replay(order=replay_order("rp_2"), state=ReplayState.DONE, changed=NOW - 800_000 * SECOND),
)
KEPT_KEYS = (
    *(each.id.encode() for each in _PENDING),
    b"ep_a/a.1\x1fevent",
    b"ep_a\x1freplay\x1frp_1",
    b"ep_a\x1freplay\x1frp_2",
    b"\x1fposition",
    b"ep_a/a.1\x1fnew",
)


def make_ledger(chance: Random) -> Log:
    """A ledger of deliveries; good in itself but for one thing or another."""
    log = make_log(chance, KEPT_KEYS, KEPT, (b"7", b"-1", b"1e3", b"9" * 5_000))
    return [*log, *((each.id.encode() + b"\x1fevent", value_of(event())) for each in _PENDING)]


def check_ledger(log: Log) -> None:
    try:
        world = World(log)
    except LedgerUnavailable as error:
        check_words(error, most=3_000)
        return
    for happening in (Answered(Response(status=500, headers={}, body=b"")), Dies(), Passes(40.0), Passes(900_000.0)):
        world.happens(happening)
        world.replays_go_on([value_of(event())])
    _check_last_order(world, max(world.partition.position, 0))


def test_a_deliveries_ledger_is_restored_or_refused() -> None:
    fuzz("deliveries ledger", make_ledger, check_ledger, size=lambda log: len(log) - len(_PENDING))


# --------------------------------------------------------------------------------------------------------- the answers
def check_verdict(answer: Response | NoResponse | Unsendable) -> None:
    verdict = judge(answer, NOW, longest_pause=timedelta(minutes=10))
    assert verdict.pause is None or timedelta(0) <= verdict.pause <= timedelta(minutes=10)
    assert len(verdict.error) <= 300
    if isinstance(answer, Response):
        assert (verdict.outcome is Outcome.DELIVERED) == (answer.status // 100 == 2)


def test_any_answer_of_a_receiver_has_a_verdict() -> None:
    fuzz("answers of receivers", make_answer, check_verdict)
