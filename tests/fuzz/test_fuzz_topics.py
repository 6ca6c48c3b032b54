"""Whoever follows a topic stands whatever lies there: bad records are passed over, and never hide a good one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from math import isfinite
from random import Random
from typing import cast

import msgspec
from aiokafka import ConsumerRecord

from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.adapters.kafka.run_times import KafkaRunTimes
from bridge.adapters.vault import Vault
from bridge.api.hub import EventHub
from bridge.api.jobs import document, shown
from bridge.api.views import DeliveriesView, JobsView
from bridge.core.budget import RateBudget
from bridge.core.fanout import fan_out
from bridge.core.keyring import Keyring, make_key
from bridge.core.progress import Sign
from bridge.core.registry import Registry, endpoint_key, matches_type, status_key, tenant_key
from bridge.core.run_times import KindRecord, RunTimes, kind_of
from bridge.core.slot_table import Expire, Leave, Member, Report, SlotTable, read_record
from bridge.core.slots import SlotHolder
from bridge.messages import EventType, JobEvent, JobRecord, Phase
from bridge.poster import Poster
from bridge.webhook_messages import (
    After,
    ApiKey,
    DeadDelivery,
    DeadReason,
    EndpointStatus,
    Outcome,
    Replay,
    Scope,
    SealedSecret,
    TenantSecrets,
)
from tests.api.examples import attempt, delivery, job, replay_order, tried
from tests.core.examples import NOW, in_every_phase
from tests.core.webhook_examples import endpoint, event
from tests.fuzz.campaign import fuzz
from tests.fuzz.job_world import settings
from tests.fuzz.mutations import (
    TEXTS,
    Log,
    documents,
    hostile_text,
    make_log,
    spoilt_bytes,
    spoilt_document,
)
from tests.roles.fakes import HandClock

CANARY = "canary-4711"
ENCRYPTION_KEY = "Y2FuYXJ5LTQ3MTEtY2FuYXJ5LTQ3MTEtY2FuYXJ5LTE="
VAULT = Vault([ENCRYPTION_KEY])
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


# --------------------------------------------------------------------------------------------------------- the registry
def _sealed(owner: str, plain: str = SECRET) -> tuple[SealedSecret, ...]:
    return (SealedSecret(sealed=VAULT.seal(plain, owner=owner), created=NOW),)


REGISTRY = documents(
    endpoint(secrets=msgspec.to_builtins(_sealed("ep_a")), sealed_headers=VAULT.seal('{"x-token":"t"}', owner="ep_a")),
    endpoint("ep_b", event_types=("tams.job.*", "*success"), labels={"a": "b"}, tenant="acme"),
    endpoint(secrets=msgspec.to_builtins(_sealed("ep_a", CANARY)), sealed_headers=VAULT.seal("no JSON", owner="ep_a")),
    EndpointStatus(endpoint_id="ep_a", epoch=1, changed=NOW, disabled_at=NOW, disabled_reason="failing"),
    TenantSecrets(tenant="acme", secrets=_sealed("acme"), changed=NOW),
)
REGISTRY_KEYS = (endpoint_key("ep_a"), endpoint_key("ep_b"), status_key("ep_a"), tenant_key("acme"), b"", b"\xff")
EVENTS = [event("a", 1, type_=kind, a="b", tenant="acme") for kind in (EventType.ACCEPTED, EventType.SUCCESS)]


class _Nobody:
    """Implements `WebhookSender`; is never asked."""

    async def send(self, post: object) -> object:
        raise AssertionError(post)


def make_registry(chance: Random) -> Log:
    """Records of the registry and of its statuses."""
    return make_log(chance, REGISTRY_KEYS, REGISTRY)


def check_registry(log: Log) -> None:
    registry = Registry()
    for key, value in log:
        registry.apply(key, value)
    for endpoint_id, found in registry.endpoints.items():
        assert found.id == endpoint_id
        registry.state(endpoint_id)
        _check_credentials(found)
    known = len(registry.endpoints)
    registry.apply(endpoint_key("ep_last"), msgspec.json.encode(endpoint("ep_last")))
    assert len(registry.endpoints) == known + 1
    orders = fan_out([(told, in_every_phase()[Phase.SUCCESS]) for told in EVENTS], registry)
    assert [order.event_id for order in orders if order.endpoint_id == "ep_last"] == [told.id for told in EVENTS]
    msgspec.json.encode(orders)


def _check_credentials(found: object) -> None:
    poster = Poster(_Nobody(), secret_box=VAULT, clock=HandClock(), source="/b", user_agent="b")  # type: ignore[arg-type]
    opened = repr(poster._credentials(found))  # type: ignore[arg-type]
    assert CANARY not in opened
    assert ENCRYPTION_KEY not in opened


def test_the_registry_stands_any_record() -> None:
    fuzz("registry", make_registry, check_registry, size=len)


def make_patterns(chance: Random) -> tuple[str, str]:
    """A pattern, and an event type."""
    pattern = "".join(chance.choice(("*", "tams", ".", "job", "success", "s", "*", "[a]", "?")) for _ in range(6))
    return chance.choice((pattern, hostile_text(chance)[:300])), chance.choice((*EventType, *TEXTS))[:100]


def check_pattern(case: tuple[str, str]) -> None:
    pattern, text = case
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    assert matches_type([pattern], text) == fnmatchcase(text, literal)


def test_a_pattern_covers_what_a_star_stands_for() -> None:
    fuzz("patterns", make_patterns, check_pattern)


# -------------------------------------------------------------------------------------------------------- the API keys
MADE = make_key(b"0123456789" * 4)
KEYS = documents(
    ApiKey(id=MADE.id, name="ci", secret_hash=MADE.secret_hash, scopes=(Scope.ADMIN,), created=NOW),
    ApiKey(id=MADE.id, name="x", secret_hash="é", scopes=(), tenant="acme", created=NOW),
)


@dataclass(frozen=True, slots=True)
class Knock:
    """Records of the keys topic, and what somebody says to be let in."""

    log: Log
    said: str


def make_knock(chance: Random) -> Knock:
    """Keys, and one who knocks with one, or with nearly one."""
    said = MADE.text
    if chance.random() < 0.6:
        said = spoilt_bytes(chance, said.encode()).decode(errors=chance.choice(("replace", "surrogateescape")))
    return Knock(make_log(chance, (MADE.id.encode(), b"other"), KEYS), chance.choice((said, hostile_text(chance))))


def check_knock(knock: Knock) -> None:
    keyring = Keyring()
    for key, value in knock.log:
        keyring.apply(key, value)
    found = keyring.find(knock.said)
    assert found is None or knock.said == MADE.text, "nobody comes in with another key"
    keyring.apply(MADE.id.encode(), msgspec.json.encode(msgspec.convert(KEYS[0], ApiKey)))
    assert keyring.find(MADE.text) is not None


def test_keys_let_in_who_holds_one_and_nobody_else() -> None:
    fuzz("api keys", make_knock, check_knock)


# ------------------------------------------------------------------------------------------------- the views of the API
JOBS = documents(*in_every_phase().values(), job(), job("order-2", Phase.FAILED))
DELIVERIES = documents(
    delivery(),
    tried(delivery("order-2.1", next_at=NOW), Outcome.FAILED),
    Replay(order=replay_order(), positions={"t-0": 5}, ends={"t-0": 10}, scanned=5, changed=NOW),
    attempt(tried(delivery(), Outcome.DELIVERED, code=200), After.DELIVERED),
    attempt(tried(delivery("order-3.1"), Outcome.BLOCKED, code=0), After.WAITING, exchange=None),
    DeadDelivery(delivery=tried(delivery(), Outcome.FAILED), reason=DeadReason.EXHAUSTED, time=NOW),
)
VIEW_KEYS = (
    b"order-1",
    b"order-1\x1fparams",
    b"ep_1/order-1.3",
    b"ep_1/order-1.3\x1fevent",
    b"ep_1\x1freplay\x1frp_1",
    b"\xff",
)
PUBLISHED = documents(*(msgspec.convert(msgspec.to_builtins(told), JobEvent) for told in EVENTS))


@dataclass(frozen=True, slots=True)
class Seen:
    """A record of a topic, as Kafka clients give it."""

    offset: int
    key: bytes | None
    value: bytes | None
    partition: int = 0


def make_seen(chance: Random) -> Sequence[Seen]:
    """Records that the API follows."""
    kinds = chance.choice((JOBS, DELIVERIES, PUBLISHED))
    log = make_log(chance, VIEW_KEYS, kinds)
    return [Seen(offset, None if chance.random() < 0.05 else key, value) for offset, (key, value) in enumerate(log)]


def check_views(records: Sequence[Seen]) -> None:
    jobs, deliveries, hub = JobsView(limit=3), DeliveriesView(history=3), EventHub()
    for seen in records:
        jobs.take(seen)
        deliveries.take_ledger(seen)
        deliveries.take_attempt(seen)
        deliveries.take_dead(seen)
        hub.take(seen.value)
    last = Seen(9, b"the last one", msgspec.json.encode(job("the last one")))
    jobs.take(last)
    assert jobs.get("the last one") is not None
    for _, found in jobs.newest_first(before=None, since=None, until=None):
        assert isinstance(found, JobRecord)
        shown(found)
        msgspec.json.decode(document(found), type=dict[str, msgspec.Raw])
    list(deliveries.newest_first(before=None, since=NOW, until=NOW + timedelta(days=1)))
    list(deliveries.attempts(before=(NOW, "x"), since=None, until=None))
    list(deliveries.replays(before=(NOW, "x")))


def test_views_of_the_api_pass_over_what_they_cannot_read() -> None:
    fuzz("views of the api", make_seen, check_views, size=len)


# ----------------------------------------------------------------------------------------------------------- run times
KIND = kind_of(["KSampler", "SaveImage"])
LEARNED = documents(
    KindRecord(weights={20: 3.0, 21: 1.5, 40: 0.1}, progress={1: (4.0, 0.1, 0.2), 7: (5.0, -0.5, 1.0)}),
    KindRecord(weights={0: 1.0}),
    KindRecord(weights={20: 9e307, 30: -5.0, 40: 1.0}),  # as damage may leave it
    KindRecord(),
)
RUN_TIME_KEYS = (f"runs:{KIND}".encode(), b"runs:", b"waits:", b"runs:a/b/c/d", b"other:x", b"", b"\xff")


def make_run_times(chance: Random) -> Log:
    """Records of the run-times topic."""
    return make_log(chance, RUN_TIME_KEYS, LEARNED)


def check_run_times(log: Log) -> None:
    runs, waits = RunTimes(), RunTimes()
    kept = KafkaRunTimes(
        settings(),
        "tams.run-times",
        {"runs": runs, "waits": waits},
        publisher=cast("KafkaPublisher", None),  # nothing is written
        clock=HandClock(),
    )
    for offset, (key, value) in enumerate(log):
        kept._take(cast("ConsumerRecord[bytes | None, bytes | None]", Seen(offset, key, value)))
    for known in (runs, waits):
        for kind in (KIND, "", "a/b/c/d"):
            _check_known(known, kind)


def _check_known(known: RunTimes, kind: str) -> None:
    known.learn(kind, 1.0, 2.0)
    expected = known.of(kind)
    assert isfinite(expected.silence(30.0))
    assert isfinite(expected.next_look(1.0, 1.0))
    assert 0.99 < sum(expected.weights) < 1.01
    assert min(expected.weights) >= 0.0
    known.learn_progress(kind, [(Sign(1, 0.5), 3.0)], 6.0)
    hint = known.hint(kind, Sign(7, 1.0), 2.0)
    assert hint is None or (isfinite(hint.centre) and hint.spread > 0)
    RunTimes().adopt(kind, msgspec.json.decode(msgspec.json.encode(known.export(kind)), type=KindRecord))


def test_what_was_learned_of_run_times_may_be_anything() -> None:
    fuzz("run times", make_run_times, check_run_times, size=len)


# ------------------------------------------------------------------------------------------------- slots of the rate
_MEMBER = Member(held=2, load=3, wanted=4, released=1, uptime_ms=9_000, credit=-5, last=0)
SLOTS = documents(
    Report(worker="b.1", number=1, slots=5, load=0, wanted=5, released=0, uptime_ms=0, position=0),
    Report(worker="b.1", number=2, slots=5, load=9, wanted=5, released=3, uptime_ms=2_000, position=1),
    Report(
        worker="c.1",
        number=7,
        slots=5,
        load=2,
        wanted=1,
        released=0,
        uptime_ms=5_000,
        position=2,
        table=SlotTable(slots=5, members={"b.1": _MEMBER, "me.2": _MEMBER}),
    ),
    Leave(worker="b.1"),
    Expire(worker="me.2", last=0),
)


def make_slots(chance: Random) -> Sequence[bytes | None]:
    """Records of others in the log of the rate; None for a turn of the worker's own."""
    return [spoilt_document(chance, SLOTS) if chance.random() < 0.6 else None for _ in range(chance.randint(2, 12))]


def check_slots(others: Sequence[bytes | None]) -> None:
    budget, now, offset = RateBudget(5), 1_000.0, 0
    holder = SlotHolder("me", budget)
    holder.set_demand(50, 5)
    holder.begin(0, now=now)
    for value in (*others, *[None] * 12):
        now += 0.7
        record = value or holder.write(now=now)
        if value is None:
            assert record is None or read_record(record) is not None
        if record is not None:
            holder.read(offset, record, now=now)
            offset += 1
        assert 0 <= holder.usable(now=now) <= max(5, holder.table.slots if holder.table else 0)
        holder.next_at(now=now)
        budget.available_at(now=now)
    holder.leave()


def test_the_log_of_the_rate_may_hold_anything() -> None:
    fuzz("slots", make_slots, check_slots, size=len)
