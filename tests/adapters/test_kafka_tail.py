"""Whole topics followed without a group: from their start or a little before their end, and what comes then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.tail import Tail
from bridge.errors import CannotStart, NotConfirmed
from bridge.settings import Settings
from tests.adapters.topics import (
    PARTITIONS,
    RawName,
    Record,
    administering,
    make_topic,
    produce_odd_headers,
    producing,
    settings_for,
)
from tests.brokers import RunningBroker

PATIENCE_S = 20


@dataclass
class Followed:
    """A tail that runs, and what it has taken in."""

    tail: Tail
    running: asyncio.Task[None]
    records: list[Record]
    at_catching_up: int
    news: asyncio.Event

    def values(self, partition: int | None = None) -> list[bytes | None]:
        """What came, in order; perhaps only that of one partition."""
        return [record.value for record in self.records if partition in {None, record.partition}]

    async def until(self, enough: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                self.news.clear()
                await self.news.wait()


@dataclass
class Topic:
    """A topic, and tails that follow it."""

    name: str
    settings: Settings
    stack: AsyncExitStack
    producer: AIOKafkaProducer

    async def write(self, *values: bytes, partition: int = 0) -> int:
        """Append records; the offset of the last one."""
        sent = [await self.producer.send(self.name, value, partition=partition) for value in values]
        offsets = [(await each).offset for each in sent]
        return int(offsets[-1])

    @asynccontextmanager
    async def transaction(self, value: bytes, *, abort: bool = False) -> AsyncIterator[None]:
        """Somebody's transaction that stays open for a while and then leaves a record, or only its traces."""
        servers = self.settings.kafka.bootstrap_servers
        async with producing(servers, transactional_id=f"{self.name}.stranger") as stranger:
            await stranger.begin_transaction()
            await stranger.send_and_wait(self.name, value, partition=0)
            yield
            await (stranger.abort_transaction() if abort else stranger.commit_transaction())

    def tail(
        self,
        take: Callable[[Record], None] = lambda _: None,
        *,
        recent: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Tail:
        return Tail(self.settings, {self.name: PARTITIONS}, take=take, clock=SystemClock(), recent=recent, check=check)

    async def follow(self, *, recent: int | None = None) -> Followed:
        """Follow until the end of the test; returns once it has caught up."""
        records: list[Record] = []
        news = asyncio.Event()

        def take(record: Record) -> None:
            records.append(record)
            news.set()

        tail = self.tail(take, recent=recent)
        running = asyncio.create_task(tail.run())

        async def stop() -> None:
            tail.stop()
            await asyncio.wait_for(running, PATIENCE_S)

        self.stack.push_async_callback(stop)
        async with asyncio.timeout(PATIENCE_S):
            await tail.caught_up.wait()
        return Followed(tail, running, records, len(records), news)


@pytest.fixture
async def topic(broker: RunningBroker, topic_prefix: str) -> AsyncIterator[Topic]:
    settings = settings_for(broker, topic_prefix)
    name = f"{topic_prefix}.endpoints"
    await make_topic(broker.bootstrap_servers, name, PARTITIONS)
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(producing(broker.bootstrap_servers))
        yield Topic(name, settings, stack, producer)


async def test_all_that_is_there_has_been_taken_in_once_it_has_caught_up(topic: Topic) -> None:
    await topic.write(*(b"%d" % number for number in range(700)))
    await topic.write(b"a", b"b", partition=1)

    followed = await topic.follow()

    assert followed.at_catching_up == 702
    assert followed.values(0) == [b"%d" % number for number in range(700)]
    assert followed.values(1) == [b"a", b"b"]


async def test_what_comes_later_is_taken_in_by_everybody_who_follows(topic: Topic) -> None:
    one, other = await topic.follow(), await topic.follow()

    await topic.write(b"later")
    await one.until(lambda: one.values() == [b"later"])
    await other.until(lambda: other.values() == [b"later"])


async def test_an_empty_topic_is_caught_up_with_at_once(topic: Topic) -> None:
    followed = await topic.follow()

    assert followed.values() == []
    assert not followed.running.done()


async def test_a_topic_that_ends_with_a_transaction_that_was_aborted_is_caught_up_with(topic: Topic) -> None:
    """Nothing comes from its last offsets."""
    await topic.write(b"before")
    async with topic.transaction(b"never", abort=True):
        pass

    followed = await topic.follow()

    assert followed.values() == [b"before"]


async def test_a_topic_that_holds_nothing_but_an_aborted_transaction_is_caught_up_with(topic: Topic) -> None:
    async with topic.transaction(b"never", abort=True):
        pass

    assert (await topic.follow()).values() == []


async def test_a_record_is_taken_in_once_its_transaction_is_committed(topic: Topic) -> None:
    followed = await topic.follow()

    async with topic.transaction(b"in the end"):
        await topic.write(b"elsewhere", partition=1)
        await followed.until(lambda: followed.values(1) == [b"elsewhere"])
        assert followed.values(0) == []
    await followed.until(lambda: followed.values(0) == [b"in the end"])


async def test_a_topic_whose_oldest_records_are_gone_is_read_from_where_it_begins(topic: Topic) -> None:
    await topic.write(b"gone", b"gone too", b"first")
    async with administering(topic.settings.kafka.bootstrap_servers) as admin:
        await admin.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(before_offset=2)})

    assert (await topic.follow()).values() == [b"first"]


@pytest.mark.parametrize(("recent", "first"), [(20, 90), (2, 99), (1, 100), (10_000, 0)])
async def test_of_a_long_topic_it_begins_so_many_records_before_the_end(topic: Topic, recent: int, first: int) -> None:
    """An equal share of each partition, counted in offsets."""
    await topic.write(*(b"%d" % number for number in range(100)))
    followed = await topic.follow(recent=recent)
    assert followed.values() == [b"%d" % number for number in range(first, 100)]

    await topic.write(b"new")

    await followed.until(lambda: followed.values()[-1:] == [b"new"])


async def test_a_record_whose_header_is_no_text_stops_nobody(topic: Topic) -> None:
    await produce_odd_headers(topic.producer, topic.name, [(b"k", b"odd", [(RawName("\xff"), b"1")])])
    await topic.write(b"next")

    assert (await topic.follow()).values() == [b"odd", b"next"]


async def test_it_tells_when_a_record_has_been_taken_in(topic: Topic) -> None:
    """At the moment of its offset, and not before."""
    followed = await topic.follow()
    waiting = asyncio.create_task(followed.tail.passed(topic.name, 0, 1))
    await topic.write(b"zero")
    await followed.until(lambda: len(followed.records) == 1)
    await topic.write(b"other partition", b"too", partition=1)
    await followed.until(lambda: len(followed.records) == 3)
    assert not waiting.done()

    await topic.write(b"one")
    async with asyncio.timeout(PATIENCE_S):
        await waiting
        await followed.tail.passed(topic.name, 0, 0)
    assert followed.values(0) == [b"zero", b"one"]


async def test_whoever_waits_for_a_record_is_told_when_nobody_follows_any_more(topic: Topic) -> None:
    followed = await topic.follow()
    waiting = asyncio.create_task(followed.tail.passed(topic.name, 0, 7))
    given_up = asyncio.create_task(followed.tail.passed(topic.name, 0, 7))
    await topic.write(b"zero")
    await followed.until(lambda: len(followed.records) == 1)
    given_up.cancel()

    followed.tail.stop()
    await asyncio.wait_for(followed.running, PATIENCE_S)

    with pytest.raises(NotConfirmed, match="not followed any more"):
        await asyncio.wait_for(waiting, PATIENCE_S)
    with pytest.raises(NotConfirmed, match="not followed any more"):
        await asyncio.wait_for(followed.tail.passed(topic.name, 0, 7), PATIENCE_S)


async def test_an_error_of_whoever_takes_records_in_ends_it_loudly(topic: Topic) -> None:
    await topic.write(b"bad")

    def take(record: Record) -> None:
        raise ZeroDivisionError(record.value)

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(topic.tail(take).run(), PATIENCE_S)


async def test_without_a_broker_it_cannot_start(broker: RunningBroker, topic_prefix: str) -> None:
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    settings = settings_for(broker, topic_prefix, kafka={"bootstrap_servers": servers})
    tail = Tail(settings, {"t.endpoints": 1}, take=lambda _: None, clock=SystemClock())

    with pytest.raises(CannotStart, match=r"^kafka: topics cannot be followed: "):
        await asyncio.wait_for(tail.run(), PATIENCE_S)
    assert not tail.caught_up.is_set()


async def test_what_is_there_is_only_caught_up_with_if_it_passes_the_check(topic: Topic) -> None:
    """A record that does not, and was replaced later, does no harm; one that still holds ends it."""
    await topic.write(b"bad", b"good")
    taken: list[bytes | None] = []

    def check() -> None:
        if taken[-1:] == [b"bad"]:
            message = "the last record is bad"
            raise CannotStart(message)

    tail = topic.tail(lambda record: taken.append(record.value), check=check)
    running = asyncio.create_task(tail.run())
    async with asyncio.timeout(PATIENCE_S):
        await tail.caught_up.wait()
        await topic.write(b"bad")
        with pytest.raises(CannotStart, match="the last record is bad"):
            await running

    late = topic.tail(lambda record: taken.append(record.value), check=check)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(CannotStart, match="the last record is bad"):
            await late.run()
    assert not late.caught_up.is_set()
