"""Connections that break in the middle of a write, and clients that have quietly stopped working."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from bridge.adapters.kafka import steady
from bridge.adapters.kafka.connection import connection_options
from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.errors import ClientDied, NotConfirmed
from tests.adapters.topics import make_topic, settings_for
from tests.brokers import RunningBroker

PATIENCE_S = 20


async def connected(broker: RunningBroker) -> AIOKafkaConnection:
    host, _, port = broker.bootstrap_servers.partition(":")
    return await create_conn(host, int(port), request_timeout_ms=5_000)


@asynccontextmanager
async def consuming(broker: RunningBroker, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(topic, **connection_options(settings_for(broker, topic).kafka), group_id=topic)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def producing(broker: RunningBroker, topic: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**connection_options(settings_for(broker, topic).kafka))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def test_a_write_to_a_connection_that_was_just_reset_is_an_error_that_the_client_expects(broker: RunningBroker) -> None:
    """On uvloop, where it would else end the task that writes: the one that fetches, or the one that finds leaders."""
    steady.install()
    steady.install()

    async def write_late() -> str:
        connection = await connected(broker)
        await ended(connection._read_task)  # it has not noticed yet
        connection._writer.transport.abort()
        await asyncio.wait([connection._closed_fut])
        with pytest.raises(KafkaConnectionError, match="broken") as caught:
            connection.send(MetadataRequest([]))
        assert not connection.connected()
        return repr(caught.value.__cause__)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert "closed" in runner.run(write_late())


@pytest.mark.parametrize("name", ["_client._sync_task", "_fetcher._fetch_task", "_coordinator._coordination_task"])
async def test_a_consumer_that_can_get_nothing_any_more_is_told_from_one_that_can(
    broker: RunningBroker, topic_prefix: str, name: str
) -> None:
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with asyncio.timeout(PATIENCE_S), consuming(broker, topic_prefix) as consumer:
        steady.check(consumer)
        part, task = name.split(".")
        await ended(getattr(getattr(consumer, part), task))

        with pytest.raises(ClientDied, match=r"has ended .*must be started again"):
            steady.check(consumer)


async def test_a_producer_that_can_send_nothing_any_more_is_told_from_one_that_can(
    broker: RunningBroker, topic_prefix: str
) -> None:
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with producing(broker, topic_prefix) as producer:
        steady.check(producer)
        await ended(producer.client._sync_task)

        with pytest.raises(ClientDied, match="look-out for leaders has ended"):
            steady.check(producer)
    steady.check(producer)


async def test_a_publisher_whose_producer_has_died_publishes_through_another(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """Without the part that finds leaders, a record for a new topic would wait for ever, and so would all after it."""
    async with KafkaPublisher(settings_for(broker, topic_prefix), confirmed_s=2.0) as publisher:
        await make_topic(broker.bootstrap_servers, topic_prefix)
        before = publisher._producer
        assert before is not None
        await ended(before.client._sync_task)

        with pytest.raises(NotConfirmed):
            await publisher.publish(topic_prefix, b"k", b"1")
        await publisher.publish(topic_prefix, b"k", b"2")

        assert publisher._producer is not before
