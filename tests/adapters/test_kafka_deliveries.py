"""The deliveries ledger on a real broker: what it writes, where and in which form, and that it comes back as it was."""

import asyncio
import gc
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.deliveries import DispatchReplay, KafkaDispatchLedgers
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.kafka.transactions import MARK_KEY
from bridge.core.registry import Registry
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.messages import DeadLetterReason
from bridge.ports import Arrival, Changes, DeadLetter
from bridge.settings import Settings
from bridge.webhook_messages import (
    After,
    Attempt,
    AttemptSummary,
    DeadDelivery,
    DeadReason,
    Delivery,
    EndpointStatus,
    Exchange,
    InlineWebhook,
    Notice,
    NoticeType,
    Outcome,
    Replay,
    ReplayOrder,
    ReplayState,
)
from bridge.webhook_ports import DispatchChanges
from tests.adapters.topics import Record, committed, producing, settings_for
from tests.brokers import RunningBroker
from tests.core.webhook_examples import FAILED, Desk, endpoint, order, replay_order, value_of
from tests.core.webhook_examples import event as job_event

NOW = SystemClock().now()

SUMMARY = AttemptSummary(
    number=3, time=NOW, outcome=Outcome.FAILED, status=500, error="the receiver answered 500", duration_s=0.1234
)
DELIVERY = Delivery(
    endpoint_id="ep_ü",
    event_id="bestellung-ü/1.12",
    type="tams.job.success",
    request_id="bestellung-ü/1",
    sequence=12,
    time=NOW,
    inline=InlineWebhook(url="https://acme.example/hook?token=1", tenant="acme"),
    ordered=NOW + timedelta(microseconds=1),
    attempts=(SUMMARY, AttemptSummary(number=4, time=NOW, outcome=Outcome.THROTTLED)),
    used=3,
    next_at=NOW + timedelta(seconds=1),
    replay_id="rp_1",
)
REPLAY = Replay(
    order=ReplayOrder(
        replay_id="rp_1",
        endpoint_id="ep_ü",
        since=NOW - timedelta(days=1),
        until=NOW,
        failed_only=True,
        event_id="a.1",
        created=NOW,
    ),
    state=ReplayState.CANCELED,
    positions={"t.success-0": 7},
    ends={"t.success-0": 9},
    scanned=7,
    matched=3,
    changed=NOW,
)
ATTEMPT = Attempt(
    delivery=DELIVERY,
    webhook_id="msg_1",
    url="https://acme.example/hook",
    attempt=SUMMARY,
    after=After.DEAD,
    exchange=Exchange(request_headers={"webhook-id": "msg_1"}, response_headers={"server": "x"}, response_body="ü"),
)
DEAD = DeadDelivery(
    delivery=DELIVERY, reason=DeadReason.EXHAUSTED, time=NOW, event=msgspec.Raw(b'{"credits":0.80,"new":[1e3]}')
)
NOTICE = Notice(
    id="n_1",
    type=NoticeType.DISABLED,
    time=NOW,
    endpoint_id="ep_ü",
    url="https://acme.example/hook",
    detail="disabled after failing for 5 days",
)
STATUS = EndpointStatus(
    endpoint_id="ep_ü",
    epoch=2,
    failing_since=NOW,
    warned=True,
    disabled_at=NOW,
    disabled_reason="failing",
    last_error="the receiver answered 500",
    changed=NOW,
)


@dataclass(frozen=True, slots=True)
class Outbox:
    """Ledgers on topics of their own."""

    ledgers: KafkaDispatchLedgers
    settings: Settings

    async def commit(self, *changes: DispatchChanges, partition: int = 0) -> None:
        """Write these, one transaction each, as an owner that goes away afterwards."""
        async with self.ledgers.open(partition) as opened:
            for change in changes:
                await opened.ledger.commit(change)

    def name(self, topic: str) -> str:
        return f"{self.settings.topics.prefix}.{topic}"

    async def records(self, topic: str, partition: int = 0) -> list[Record]:
        """All committed records of one of our topics."""
        return await committed(self.settings.kafka.bootstrap_servers, self.name(topic), partition)


@pytest.fixture
async def topics(broker: RunningBroker, topic_prefix: str) -> Topics:
    settings = settings_for(broker, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    return topics


@pytest.fixture
async def outbox(broker: RunningBroker, topic_prefix: str, topics: Topics) -> Outbox:
    settings = settings_for(broker, topic_prefix)
    return Outbox(KafkaDispatchLedgers(settings, topics.names, await topics.partition_counts()), settings)


def fields_of(record: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


# ------------------------------------------------------------------------------------------------------ what comes back
async def test_every_field_of_what_is_kept_comes_back_as_it_was(outbox: Outbox) -> None:
    value = b'{"credits":0.80,"new":[1e3],"name":"\\u00fc"}'
    await outbox.commit(
        DispatchChanges(
            deliveries={DELIVERY.id: DELIVERY},
            events={DELIVERY.id: value},
            replays={("ep_ü", "rp_1"): REPLAY},
            position=2**40,
        )
    )

    async with outbox.ledgers.open(0) as opened:
        (delivery,), (replay,) = opened.deliveries, opened.replays
        assert fields_of(delivery) == fields_of(DELIVERY)
        assert fields_of(replay) == fields_of(REPLAY)
        assert opened.events == {DELIVERY.id: value}
        assert opened.position == 2**40


async def test_records_have_the_keys_that_are_promised_and_what_has_ended_leaves_tombstones(outbox: Outbox) -> None:
    """Compaction goes by keys."""
    replays: dict[tuple[str, str], Replay | None] = {("ep_ü", "rp_1"): None}
    await outbox.commit(
        DispatchChanges(
            deliveries={DELIVERY.id: DELIVERY},
            events={DELIVERY.id: b"{}"},
            replays={("ep_ü", "rp_1"): REPLAY},
            position=1,
        ),
        DispatchChanges(deliveries={DELIVERY.id: None}, events={DELIVERY.id: None}, replays=replays, position=2),
    )

    found = [record for record in await outbox.records("deliveries") if record.key != MARK_KEY]

    delivery = "ep_ü/bestellung-ü/1.12".encode()
    keys = [delivery, delivery + b"\x1fevent", "ep_ü".encode() + b"\x1freplay\x1frp_1", b"\x1fposition"]
    assert [record.key for record in found] == keys + keys
    assert [record.value for record in found[4:]] == [None, None, None, b"2"]


async def test_what_the_core_writes_comes_back_as_it_stands_in_the_core(outbox: Outbox) -> None:
    """Orders, a failed attempt, an end and a replay, from the dispatcher's journal over the topic to its successor."""
    desk = Desk(endpoint("ep_a"), endpoint("ep_b"))
    desk.place(order("ep_a", "one"), order("ep_a", "two"), order("ep_b", "one"), replay_order())
    one, two, three = desk.send()
    desk.answer(one, FAILED)
    first = desk.commit()
    desk.answer(two)
    second = desk.commit()

    await outbox.commit(first, second)

    async with outbox.ledgers.open(0) as opened:
        assert {each.id: msgspec.json.encode(each) for each in opened.deliveries} == desk.ledger.deliveries
        assert opened.events == desk.ledger.events
        assert three.delivery.id in opened.events
        assert two.delivery.id not in opened.events
        assert [msgspec.json.encode(each) for each in opened.replays] == list(desk.ledger.replays.values())
        assert opened.position == desk.ledger.position == 4


async def test_a_commit_far_larger_than_a_batch_is_one_transaction(outbox: Outbox) -> None:
    deliveries = {f"ep_a/a.{number}": msgspec.structs.replace(DELIVERY, event_id=f"a.{number}") for number in range(60)}
    filler = b'{"filler":"%s"}' % (b"x" * 50_000)
    events: dict[str, bytes | None] = dict.fromkeys(deliveries, filler)
    changes = DispatchChanges(deliveries=dict(deliveries), events=events, attempts=60 * [ATTEMPT], position=60)

    await outbox.commit(changes)

    async with outbox.ledgers.open(0) as opened:
        assert opened.events == events
        assert opened.position == 60
    assert len(await outbox.records("attempts")) == 60


async def test_an_event_of_the_longest_size_is_kept_and_may_die(outbox: Outbox) -> None:
    longest = b'{"p":"%s"}' % (b"x" * (outbox.settings.tams.max_answer_bytes + 60_000))
    dead = DeadDelivery(delivery=DELIVERY, reason=DeadReason.TOO_OLD, time=NOW, event=msgspec.Raw(longest))

    await outbox.commit(DispatchChanges(deliveries={DELIVERY.id: DELIVERY}, events={DELIVERY.id: longest}, dead=[dead]))

    async with outbox.ledgers.open(0) as opened:
        assert opened.events == {DELIVERY.id: longest}
    (record,) = await outbox.records("deliveries.dead")
    assert longest in (record.value or b"")


async def test_an_aborted_owner_leaves_nothing_behind(outbox: Outbox) -> None:
    """The last state before a crash in the middle of a transaction is the last one that was committed."""
    async with outbox.ledgers.open(0) as former:
        await former.ledger.commit(DispatchChanges(position=1))
        producer = former.ledger._writer._producer  # type: ignore[attr-defined]
        await producer.begin_transaction()
        await producer.send_and_wait(outbox.name("deliveries"), b"99", key=b"\x1fposition", partition=0)
        async with outbox.ledgers.open(0) as latter:
            assert latter.position == 1


@pytest.mark.parametrize("key", [b"ep_a/a.1", b"ep_a\x1freplay\x1frp_1"], ids=["delivery", "replay"])
async def test_a_record_of_an_unknown_layout_stops_the_partition_loudly(key: bytes, outbox: Outbox) -> None:
    async with producing(outbox.settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(outbox.name("deliveries"), b'{"used": "dreaming"}', key=key, partition=0)

    with pytest.raises(LedgerUnavailable, match="cannot be read"):
        async with outbox.ledgers.open(0):
            pytest.fail("opened")


async def test_a_worker_of_the_same_group_name_is_nobody_that_is_fenced(outbox: Outbox, topics: Topics) -> None:
    """Their transactional ids name their input topics, too."""
    settings = outbox.settings.model_copy(update={"worker": outbox.settings.forwarder})
    worker = KafkaLedgers(settings, topics.names, await topics.partition_counts())

    async with outbox.ledgers.open(0) as deliveries, worker.open(0) as jobs:
        await deliveries.ledger.commit(DispatchChanges(position=1))
        await jobs.ledger.commit(Changes(position=1))


async def test_what_fenced_an_owner_is_told_once_and_not_again_when_it_is_forgotten(outbox: Outbox) -> None:
    """A commit goes to many topics at once, and the client keeps an error for each."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    changes = DispatchChanges(
        deliveries={DELIVERY.id: DELIVERY}, attempts=[ATTEMPT], dead=[DEAD], notices=[NOTICE], position=1
    )

    async with outbox.ledgers.open(0) as former:
        async with outbox.ledgers.open(0):
            pass
        with pytest.raises(OwnershipLost):
            await former.ledger.commit(changes)
    del former
    gc.collect()

    assert reported == []


# ----------------------------------------------------------------------------------------------- what is told to others
async def test_attempts_dead_deliveries_and_notices_lie_in_the_partition_of_the_deliveries_by_endpoint(
    outbox: Outbox,
) -> None:
    changes = DispatchChanges(attempts=[ATTEMPT], dead=[DEAD], notices=[NOTICE])

    await outbox.commit(changes, partition=1)

    kinds = {"attempts": ATTEMPT, "deliveries.dead": DEAD, "endpoints.notices": NOTICE}
    for topic, written in kinds.items():
        assert await outbox.records(topic, 0) == []
        (record,) = await outbox.records(topic, 1)
        assert record.key == "ep_ü".encode()
        assert record.value is not None
        assert fields_of(msgspec.json.decode(record.value, type=type(written))) == fields_of(written)


async def test_an_endpoint_status_is_read_by_the_registry_and_its_topic_is_not_that_of_the_endpoints(
    outbox: Outbox,
) -> None:
    """From whichever partition it is written."""
    await outbox.commit(DispatchChanges(statuses={"ep_ü": STATUS}), partition=1)

    assert await outbox.records("endpoints") == []
    (record,) = await outbox.records("endpoints.status")
    registry = Registry()
    assert registry.apply(record.key or b"", record.value) == "ep_ü"
    assert registry.statuses == {"ep_ü": STATUS}


async def test_a_dispatch_record_that_cannot_be_read_is_parked_as_received_with_the_reason(outbox: Outbox) -> None:
    arrival = Arrival(offset=4, key=None, value=bytes(range(256)), headers=(("a", None), ("a", b"\xff")))
    letter = DeadLetter(arrival, DeadLetterReason.INVALID_DISPATCH, "because; ü", NOW)

    await outbox.commit(DispatchChanges(dead_letters=[letter], position=5), partition=1)

    (record,) = await outbox.records("dead-letter", 1)
    assert (record.key, record.value) == (None, arrival.value)
    assert list(record.headers) == [
        ("a", None),
        ("a", b"\xff"),
        ("dlq-reason", b"invalid_dispatch"),
        ("dlq-error", "because; ü".encode()),
        ("dlq-topic", outbox.name("dispatch").encode()),
        ("dlq-partition", b"1"),
        ("dlq-offset", b"4"),
        ("dlq-time", NOW.isoformat().encode()),
    ]


async def test_an_event_that_died_is_in_its_record_byte_for_byte(outbox: Outbox) -> None:
    value = value_of(job_event("ü", 3))
    dead = DeadDelivery(delivery=DELIVERY, reason=DeadReason.BACKLOG_FULL, time=NOW, event=msgspec.Raw(value))

    await outbox.commit(DispatchChanges(dead=[dead]))

    (record,) = await outbox.records("deliveries.dead")
    assert bytes(msgspec.json.decode(record.value or b"", type=DeadDelivery).event) == value


def test_an_event_under_no_readable_key_harms_nobody() -> None:
    replay = DispatchReplay()
    replay.add(b"\xff\x1fevent", b"{}")

    assert replay.opened(None).deliveries == []  # type: ignore[arg-type]  # nothing is written
