"""The requests topic as a worker reads it: from the right place, held back when told, and past every odd record."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from confluent_kafka import Producer

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.feed import KafkaFeed
from bridge.ports import Arrival
from bridge.settings import Settings
from tests.adapters.topics import (
    RawName,
    administering,
    committed,
    make_topic,
    produce_odd_headers,
    producing,
    settings_for,
)
from tests.brokers import RunningBroker

PATIENCE_S = 20


class Reader:
    """Implements `bridge.ports.FeedReader`: writes down what it is told, and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()
        self.arrivals: dict[int, list[Arrival]] = {}
        self.moves: list[tuple[int, int]] = []
        self.wants = True
        self.asked = 0
        self._told = asyncio.Event()

    def assigned(self, partitions: Collection[int]) -> None:
        self.partitions = set(partitions)
        self._told.set()

    async def revoked(self) -> None:
        self.partitions = set()
        self._told.set()

    def moved(self, partition: int, position: int) -> None:
        self.moves.append((partition, position))

    def arrived(self, partition: int, arrivals: Sequence[Arrival]) -> None:
        self.arrivals.setdefault(partition, []).extend(arrivals)
        self._told.set()

    def wants_more(self) -> bool:
        self.asked += 1
        self._told.set()
        return self.wants

    def values(self, partition: int = 0) -> list[bytes | None]:
        """What came, in order."""
        return [arrival.value for arrival in self.arrivals.get(partition, [])]

    async def until(self, enough: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                self._told.clear()
                await self._told.wait()


class Topic:
    """A requests topic, and feeds that read it."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.servers = settings.kafka.bootstrap_servers
        self.name = f"{settings.topics.prefix}.requests"
        self._stack = stack

    async def publish(self, *values: bytes, partition: int = 0) -> None:
        """Write records with plain means."""
        async with producing(self.servers) as producer:
            for value in values:
                await producer.send_and_wait(self.name, value, partition=partition)

    async def read(self, *, shorter_s: float = 0.5) -> tuple[KafkaFeed, Reader]:
        """A feed that has joined the group; it ends with the test."""
        group, reader = self.settings.worker.group, Reader()
        feed = KafkaFeed(self.settings, topic=self.name, group=group, clock=SystemClock(), shorter_s=shorter_s)
        running = asyncio.create_task(feed.run(reader))

        async def end() -> None:
            feed.stop()
            await asyncio.wait_for(running, PATIENCE_S)

        self._stack.push_async_callback(end)
        await reader.until(lambda: bool(reader.partitions))
        return feed, reader


@pytest.fixture
async def topic(broker: RunningBroker, topic_prefix: str) -> AsyncIterator[Topic]:
    settings = settings_for(broker, topic_prefix, kafka={"heartbeat_interval_s": 0.3})
    await make_topic(broker.bootstrap_servers, f"{topic_prefix}.requests")
    async with AsyncExitStack() as stack:
        yield Topic(settings, stack)


async def test_nothing_is_delivered_before_its_partition_begins(topic: Topic) -> None:
    await topic.publish(b"zero")
    await topic.publish(b"one", partition=1)
    feed, reader = await topic.read()
    assert reader.partitions == {0, 1}

    feed.begin(1, None)
    await reader.until(lambda: reader.values(1) == [b"one"])

    assert reader.values(0) == []


async def test_reading_begins_where_the_ledger_says(topic: Topic) -> None:
    await topic.publish(b"0", b"1", b"2", b"3")
    feed, reader = await topic.read()

    feed.begin(0, 2)
    await reader.until(lambda: len(reader.values()) == 2)

    assert [(arrival.offset, arrival.value) for arrival in reader.arrivals[0]] == [(2, b"2"), (3, b"3")]


async def test_a_held_partition_is_silent_and_begins_anew_elsewhere(topic: Topic) -> None:
    await topic.publish(b"0", b"1")
    feed, reader = await topic.read()
    feed.begin(0, None)
    await reader.until(lambda: len(reader.values()) == 2)

    feed.hold(0)
    await topic.publish(b"2")
    asked = reader.asked
    await reader.until(lambda: reader.asked >= asked + 3)
    assert len(reader.values()) == 2

    feed.begin(0, 1)
    await reader.until(lambda: len(reader.values()) == 4)
    assert reader.values() == [b"0", b"1", b"1", b"2"]


async def test_a_reader_that_wants_no_more_is_left_alone_until_it_does(topic: Topic) -> None:
    feed, reader = await topic.read()
    feed.begin(0, None)
    await topic.publish(b"0")
    await reader.until(lambda: len(reader.values()) == 1)

    reader.wants = False
    asked = reader.asked
    await reader.until(lambda: reader.asked >= asked + 2)
    await topic.publish(b"1")
    asked = reader.asked
    await reader.until(lambda: reader.asked >= asked + 3)
    assert len(reader.values()) == 1

    reader.wants = True
    await reader.until(lambda: reader.values() == [b"0", b"1"])


async def test_a_position_below_the_start_of_the_topic_is_clamped_to_it(topic: Topic) -> None:
    """Requests were deleted before they were read: said loudly, and the rest is worked on."""
    await topic.publish(b"0", b"1", b"2")
    async with administering(topic.servers) as admin:
        await admin.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(before_offset=2)})
    feed, reader = await topic.read()

    feed.begin(0, 1)
    await reader.until(lambda: reader.values() == [b"2"])
    assert reader.moves == [(0, 2)]


async def test_a_topic_shorter_than_the_position_is_read_from_its_start(topic: Topic) -> None:
    """The topic was made anew: better twice, where request ids are remembered, than never."""
    await topic.publish(b"0", b"1")
    feed, reader = await topic.read()

    feed.begin(0, 50)

    await reader.until(lambda: reader.values() == [b"0", b"1"])
    assert reader.moves == [(0, 0)]


async def test_a_topic_that_is_shorter_only_for_a_while_is_not_read_again(topic: Topic) -> None:
    """So it looks while a broker answers that slept, and has not heard yet that another one leads now."""
    await topic.publish(b"0", b"1")
    feed, reader = await topic.read(shorter_s=1000)

    feed.begin(0, 3)
    asked = reader.asked
    await reader.until(lambda: reader.asked > asked + 2)
    await topic.publish(b"2", b"3")
    await reader.until(lambda: reader.values() == [b"3"])

    assert reader.moves == []


async def test_a_position_at_the_end_waits_for_what_comes(topic: Topic) -> None:
    await topic.publish(b"0")
    feed, reader = await topic.read()
    feed.begin(0, 1)

    await topic.publish(b"1")

    await reader.until(lambda: reader.values() == [b"1"])


async def test_two_readers_share_the_partitions_and_one_takes_over(topic: Topic) -> None:
    first_feed, first = await topic.read()
    _, second = await topic.read()
    await first.until(lambda: len(first.partitions) == 1)
    assert first.partitions | second.partitions == {0, 1}

    first_feed.stop()

    await second.until(lambda: second.partitions == {0, 1})


async def test_positions_are_told_to_the_group_for_lag_tools(topic: Topic) -> None:
    await topic.publish(b"0", b"1")
    feed, reader = await topic.read()
    feed.begin(0, None)
    await reader.until(lambda: len(reader.values()) == 2)
    assert feed.lag() == {0: 0}

    feed.stop()
    group = topic.settings.worker.group
    async with administering(topic.servers) as admin, asyncio.timeout(PATIENCE_S):
        tp = TopicPartition(topic.name, 0)
        while (await admin.list_consumer_group_offsets(group)).get(tp, (None,))[0] != 2:
            await SystemClock().wait(asyncio.Event(), 0.05)


async def test_records_are_handed_over_as_received(topic: Topic) -> None:
    """Null keys and values, binary keys, null headers, names that repeat: all of it is for the core to judge."""
    async with producing(topic.servers) as producer:
        await producer.send_and_wait(topic.name, None, key=b"\xff\x00", partition=0)
        await producer.send_and_wait(
            topic.name, b"", partition=0, headers=[("a", None), ("a", b"\xff"), ("", b""), ("ü", b"1")]
        )
    feed, reader = await topic.read()
    feed.begin(0, None)
    await reader.until(lambda: len(reader.values()) == 2)

    tombstone, empty = reader.arrivals[0]
    assert (tombstone.key, tombstone.value, tombstone.headers) == (b"\xff\x00", None, ())
    assert (empty.key, empty.value) == (None, b"")
    assert empty.headers == (("a", None), ("a", b"\xff"), ("", b""), ("ü", b"1"))


async def test_a_header_whose_name_is_no_text_does_not_stop_the_partition(topic: Topic) -> None:
    """Aiokafka itself never gets past such a record."""
    await topic.publish(b"before")
    async with producing(topic.servers) as producer:
        odd = (b"k", b"odd", [(RawName("\xff\xfe"), b"x"), ("plain", b"y")])
        await produce_odd_headers(producer, topic.name, [(None, b"first", []), odd, (None, b"third", [])])
    await topic.publish(b"after")
    feed, reader = await topic.read()

    feed.begin(0, None)
    await reader.until(lambda: reader.values() == [b"before", b"first", b"odd", b"third", b"after"])

    assert reader.arrivals[0][2].headers == (("\\xff\\xfe", b"x"), ("plain", b"y"))
    assert await committed(topic.servers, topic.name)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_of_other_clients_is_read(codec: str, topic: Topic) -> None:
    producer = Producer({"bootstrap.servers": topic.servers, "compression.type": codec})
    producer.produce(topic.name, b"x" * 1000, partition=0)
    await asyncio.to_thread(producer.flush, PATIENCE_S)
    feed, reader = await topic.read()

    feed.begin(0, None)

    await reader.until(lambda: reader.values() == [b"x" * 1000])


async def test_records_of_an_aborted_transaction_are_not_delivered(topic: Topic) -> None:
    async with producing(topic.servers, transactional_id=f"{topic.name}.writer") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, b"aborted", partition=0)
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic.name, b"committed", partition=0)
    feed, reader = await topic.read()

    feed.begin(0, None)

    await reader.until(lambda: reader.values() == [b"committed"])
