"""Past events on a real broker: where a replay begins and ends, and that it reads everything in between, once."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.deliveries import KafkaDispatchLedgers
from bridge.adapters.kafka.history import KafkaEventHistory
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.core.fanout import partition_of
from bridge.errors import LedgerUnavailable
from bridge.messages import EventType, JobEvent, JobRecord, Phase
from bridge.ports import Changes
from bridge.settings import Settings
from bridge.webhook_messages import DeadDelivery, DeadReason, Delivery, ReplayOrder
from bridge.webhook_ports import DispatchChanges, PastEvents
from tests.adapters.topics import administering, producing, settings_for
from tests.brokers import RunningBroker

# An hour ago: the ends of transactions bear the broker's time, which is to lie behind all that is asked about.
NOW = SystemClock().now().replace(microsecond=0) - timedelta(hours=1)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
PATIENCE_S = 20
FIRST_DAY, LAST_MOMENT = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Past:
    """Topics of a bridge, and the history that is read from them."""

    settings: Settings
    names: Topics
    counts: dict[str, int]
    history: KafkaEventHistory

    async def happened(self, *events: JobEvent, partition: int = 0) -> None:
        """Publish events as a worker does."""
        job = JobRecord(request_id="a", phase=Phase.ACCEPTED, accepted_at=NOW)
        async with KafkaLedgers(self.settings, self.names.names, self.counts).open(partition) as opened:
            await opened.ledger.commit(Changes(events=[(event, job) for event in events], position=1))

    async def died(self, *dead: DeadDelivery, partition: int) -> None:
        """Give deliveries up as a forwarder does."""
        async with KafkaDispatchLedgers(self.settings, self.names.names, self.counts).open(partition) as opened:
            await opened.ledger.commit(DispatchChanges(dead=list(dead)))

    async def read(self, order: ReplayOrder) -> list[bytes]:
        """Everything between an order's bounds, in as many steps as it takes; each position must only move on."""
        positions, ends = await self.history.bounds(order)
        values: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S):
            async for past in self.history.read(positions, ends):
                values += past.values
                assert all(past.positions[place] >= positions[place] for place in past.positions)
                positions = {**positions, **past.positions}
        assert positions == ends
        return values

    async def ids(self, order: ReplayOrder) -> list[str]:
        """The same, as ids of events."""
        return sorted(ids_of(await self.read(order)))


def ids_of(values: Iterable[bytes]) -> list[str]:
    return [msgspec.json.decode(value, type=JobEvent).id for value in values]


@pytest.fixture
async def past(broker: RunningBroker, topic_prefix: str) -> Past:
    settings = settings_for(broker, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    counts = await topics.partition_counts()
    return Past(settings, topics, counts, KafkaEventHistory(settings, topics.names, counts))


def event(number: int, at: datetime | None = None, kind: EventType = EventType.SUCCESS) -> JobEvent:
    """An event; of the minute of its number if no time is given."""
    return JobEvent(
        id=f"a.{number}",
        type=kind,
        time=at or NOW + number * MINUTE,
        request_id="a",
        sequence=number,
        attempt=1,
        labels={},
    )


def dead(event_id: str, endpoint_id: str = "ep_a") -> DeadDelivery:
    delivery = Delivery(
        endpoint_id=endpoint_id,
        event_id=event_id,
        type="tams.job.success",
        request_id="a",
        sequence=1,
        time=NOW,
        ordered=NOW,
    )
    return DeadDelivery(delivery=delivery, reason=DeadReason.EXHAUSTED, time=NOW, event=msgspec.Raw(b"{}"))


def order(since: datetime, until: datetime, *, failed_only: bool = False, endpoint_id: str = "ep_a") -> ReplayOrder:
    return ReplayOrder(
        replay_id="rp_1", endpoint_id=endpoint_id, since=since, until=until, failed_only=failed_only, created=NOW
    )


EVERYTHING = order(NOW - MINUTE, NOW + timedelta(days=1))


async def test_a_replay_reads_the_events_between_its_times_of_all_topics_and_partitions(past: Past) -> None:
    for partition in (0, 1):
        kinds = (EventType.RUNNING, EventType.SUCCESS, EventType.FAILED)
        events = [event(10 * number + partition, NOW + number * MINUTE, kind) for number in range(9) for kind in kinds]
        await past.happened(*events, partition=partition)

    found = await past.ids(order(NOW + 3 * MINUTE, NOW + 6 * MINUTE))

    expected = [f"a.{10 * number + partition}" for number in range(3, 7) for partition in (0, 1)]
    assert found == sorted(3 * expected)


@pytest.mark.parametrize("fraction", [0, 1, 499, 500, 501, 999, 500_000, 999_499, 999_500, 999_999])
async def test_the_one_event_of_an_instant_is_found_by_that_instant(past: Past, fraction: int) -> None:
    """Records bear times in whole milliseconds, events in microseconds; a redelivery asks for one instant."""
    instant = NOW + timedelta(microseconds=fraction)
    await past.happened(event(1, instant - SECOND), event(2, instant), event(3, instant + SECOND))

    assert await past.ids(order(instant, instant)) == ["a.2"]


async def test_without_events_in_its_times_a_replay_has_nothing_to_read(past: Past) -> None:
    assert await past.history.bounds(EVERYTHING) == ({}, {})
    await past.happened(event(1))

    assert await past.history.bounds(order(NOW - MINUTE, NOW)) == ({}, {})
    assert await past.history.bounds(order(NOW + 2 * MINUTE, NOW + 3 * MINUTE)) == ({}, {})
    assert await past.read(order(NOW - MINUTE, NOW)) == []


@pytest.mark.parametrize("failed_only", [False, True])
async def test_any_time_of_a_calendar_may_be_asked_for(past: Past, failed_only: bool) -> None:  # noqa: FBT001
    """Kafka knows none before 1970; an error would end the forwarder again and again: its ledger holds the order."""
    await past.happened(event(1))
    await past.died(dead("a.1"), partition=partition_of("ep_a", 2))

    found = await past.read(order(FIRST_DAY, LAST_MOMENT, failed_only=failed_only))

    assert len(found) == 1
    assert await past.history.bounds(order(FIRST_DAY, FIRST_DAY)) == ({}, {})


async def test_what_happens_after_the_bounds_were_found_is_not_read(past: Past) -> None:
    await past.happened(event(1), event(2))
    positions, ends = await past.history.bounds(EVERYTHING)
    await past.happened(event(3), event(4))

    async with asyncio.timeout(PATIENCE_S):
        found = [value async for part in past.history.read(positions, ends) for value in part.values]

    assert ids_of(found) == ["a.1", "a.2"]


async def test_a_replay_that_was_left_goes_on_where_it_was(past: Past) -> None:
    """In steps that are much smaller than all there is."""
    await past.happened(*(event(number, NOW + number * SECOND) for number in range(450)), partition=0)
    await past.happened(*(event(number, NOW + number * SECOND) for number in range(1000, 1450)), partition=1)
    positions, ends = await past.history.bounds(EVERYTHING)

    found: list[str] = []
    for _ in range(2):
        part = await first_of(past, positions, ends)
        found += ids_of(part.values)
        positions = {**positions, **part.positions}
    assert 0 < len(found) <= 400
    async for part in past.history.read(positions, ends):
        found += ids_of(part.values)

    assert len(found) == 900
    assert set(found) == {f"a.{number}" for number in (*range(450), *range(1000, 1450))}


async def first_of(past: Past, positions: dict[str, int], ends: dict[str, int]) -> PastEvents:
    """The first step of a reading that is left then."""
    async with aclosing(past.history.read(positions, ends)) as reading, asyncio.timeout(PATIENCE_S):
        return await anext(reading)


async def test_a_replay_that_has_read_everything_reads_nothing(past: Past) -> None:
    await past.happened(event(1))
    _, ends = await past.history.bounds(EVERYTHING)

    assert [part async for part in past.history.read(ends, ends)] == []


async def test_what_transactions_leave_at_the_end_of_a_topic_is_passed_over(past: Past) -> None:
    """Their markers have offsets, and so have records that were never committed."""
    await past.happened(event(1))
    await past.happened(event(2))
    servers, success = past.settings.kafka.bootstrap_servers, f"{past.settings.topics.prefix}.success"
    async with producing(servers, transactional_id=f"{past.settings.topics.prefix}.stranger") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(success, msgspec.json.encode(event(3)), partition=0)
        await producer.abort_transaction()

    assert await past.ids(EVERYTHING) == ["a.1", "a.2"]


async def test_events_that_have_been_deleted_with_time_are_left_out(past: Past) -> None:
    await past.happened(event(1), event(2), event(3))
    positions, ends = await past.history.bounds(EVERYTHING)
    servers, success = past.settings.kafka.bootstrap_servers, f"{past.settings.topics.prefix}.success"
    async with administering(servers) as admin:
        await admin.delete_records({TopicPartition(success, 0): RecordsToDelete(before_offset=2)})

    async with asyncio.timeout(PATIENCE_S):
        found = [value async for part in past.history.read(positions, ends) for value in part.values]

    assert ids_of(found) == ["a.3"]


async def test_a_topic_that_was_made_anew_and_is_shorter_now_ends_the_replay_too(past: Past) -> None:
    await past.happened(event(1), event(2))
    name = f"{past.settings.topics.prefix}.success-0"

    async with asyncio.timeout(PATIENCE_S):
        parts = [part async for part in past.history.read({name: 0}, {name: 1000})]

    assert ids_of(value for part in parts for value in part.values) == ["a.1", "a.2"]
    assert parts[-1].positions == {name: 1000}


async def test_dead_deliveries_of_one_endpoint_are_read_from_its_partition(past: Past) -> None:
    """All that died since: when an event happened tells nothing of when its delivery was given up."""
    of_a, of_others = partition_of("ep_a", 2), 1 - partition_of("ep_a", 2)
    await past.died(dead("a.1"), dead("b.1", "ep_in_the_same_partition"), partition=of_a)
    await past.died(dead("a.2"), partition=of_a)
    await past.died(dead("c.1", "ep_elsewhere"), partition=of_others)
    await past.happened(event(1))

    values = await past.read(order(NOW - MINUTE, NOW, failed_only=True))

    found = [msgspec.json.decode(value, type=DeadDelivery).delivery.id for value in values]
    assert found == ["ep_a/a.1", "ep_in_the_same_partition/b.1", "ep_a/a.2"]


async def test_what_died_before_the_time_asked_for_is_not_looked_at(past: Past) -> None:
    await past.died(dead("a.1"), partition=partition_of("ep_a", 2))

    later = SystemClock().now() + MINUTE
    assert await past.history.bounds(order(later, later, failed_only=True)) == ({}, {})


async def test_brokers_that_do_not_answer_are_trouble_that_may_pass(past: Past) -> None:
    nobody = past.settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_ports(1)[0]}"})
    settings = past.settings.model_copy(update={"kafka": nobody})
    history = KafkaEventHistory(settings, past.names.names, past.counts)

    with pytest.raises(LedgerUnavailable, match=r"^replay: "):
        await history.bounds(EVERYTHING)
    with pytest.raises(LedgerUnavailable, match=r"^replay: "):
        await anext(history.read({"t.success-0": 0}, {"t.success-0": 1}))
