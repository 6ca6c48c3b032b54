"""Clients of Kafka end in time and leave nothing behind, also when the brokers went before them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.connection import stop_client
from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.errors import NotConfirmed
from bridge.settings import read_settings
from tests.crash.cluster import Cluster
from tests.crash.proxy import Proxy

Client: TypeAlias = "AIOKafkaConsumer | AIOKafkaProducer"

IN_GOOD_ORDER_S = 0.3
IN_USE_S = 0.5
ENOUGH_S = 4.0
PATIENCE_S = 30.0

pytestmark = pytest.mark.apache


@pytest.fixture
def topic(cluster: Cluster) -> str:
    """Of one partition, whose leader is known everywhere."""
    name = f"t{secrets.token_hex(6)}"
    cluster.create_topic(name)
    return name


@contextmanager
def unreachable(cluster: Cluster, fault: Callable[[Proxy], None]) -> Iterator[None]:
    """The whole cluster, for those who come by the proxies."""
    for node in cluster.nodes:
        fault(node.proxy)
    try:
        yield
    finally:
        for node in cluster.nodes:
            node.proxy.heal()


async def consumer(servers: str, topic: str) -> Client:
    client = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    await client.start()
    client.assign([TopicPartition(topic, 0)])
    await client.getmany(timeout_ms=100)
    return client


async def member(servers: str, topic: str) -> Client:
    client = AIOKafkaConsumer(
        topic, bootstrap_servers=servers, group_id=topic, heartbeat_interval_ms=100, enable_auto_commit=False
    )
    await client.start()
    await client.getmany(timeout_ms=100)
    return client


async def idempotent(servers: str, topic: str) -> Client:
    client = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    await client.start()
    await client.send_and_wait(topic, b"first", partition=0)
    return client


async def transactional(servers: str, topic: str) -> Client:
    client = AIOKafkaProducer(bootstrap_servers=servers, acks="all", transactional_id=topic)
    await client.start()
    await client.begin_transaction()
    await client.send_and_wait(topic, b"first", partition=0)
    return client


async def use(client: Client, topic: str) -> None:
    """Do what it is there for, until that fails or it has been tried for long enough."""
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(IN_USE_S):
            if isinstance(client, AIOKafkaConsumer):
                while True:
                    await client.getmany(timeout_ms=50)
            await client.send_and_wait(topic, b"second", partition=0)


async def left_of(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Those that have not ended soon."""
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)
    return {task for task in tasks if not task.done()}


def waited_s(publisher: KafkaPublisher) -> float:
    """For how long something has not been confirmed; 0 if everything is."""
    since = publisher.unconfirmed_since
    return 0.0 if since is None else asyncio.get_running_loop().time() - since


KINDS: Mapping[str, Callable[[str, str], Awaitable[Client]]] = {
    each.__name__: each for each in (consumer, member, idempotent, transactional)
}


@pytest.fixture
async def reported() -> AsyncIterator[list[Mapping[str, Any]]]:
    """What the event loop was told of errors that nobody waited for."""
    told: list[Mapping[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@pytest.mark.parametrize("fault", [Proxy.refuse, Proxy.stall])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_lost_its_brokers_ends_in_time_and_leaves_nothing_behind(
    cluster: Cluster, topic: str, kind: str, fault: Callable[[Proxy], None], reported: list[Mapping[str, Any]]
) -> None:
    """Left to itself, aiokafka's `stop` hangs, or ends as if cancelled, and its tasks look for the brokers for ever."""
    before = asyncio.all_tasks()
    client = await KINDS[kind](cluster.bootstrap_servers, topic)
    with unreachable(cluster, fault):
        await use(client, topic)
        async with asyncio.timeout(ENOUGH_S):
            await stop_client(client, seconds=IN_GOOD_ORDER_S)

        assert await left_of(asyncio.all_tasks() - before) == set()
    assert reported == []


async def test_who_waits_for_a_client_to_end_can_be_cancelled(cluster: Cluster, topic: str) -> None:
    """The end of a process does not wait for brokers, and what was cancelled leaves nothing behind either."""
    before = asyncio.all_tasks()
    client = await idempotent(cluster.bootstrap_servers, topic)
    with unreachable(cluster, Proxy.stall):
        await use(client, topic)
        stopping = asyncio.create_task(stop_client(client, seconds=PATIENCE_S))
        await asyncio.wait([stopping], timeout=IN_GOOD_ORDER_S)
        stopping.cancel()
        async with asyncio.timeout(ENOUGH_S):
            await asyncio.wait([stopping])

        assert stopping.cancelled()
        assert await left_of(asyncio.all_tasks() - before) == set()


async def test_a_publisher_says_for_how_long_the_brokers_have_not_confirmed_until_they_do(
    cluster: Cluster, topic: str
) -> None:
    """A record that was given up by its writer is still tried, so that this tells of the brokers' return by itself."""
    settings = read_settings(kafka={"bootstrap_servers": cluster.bootstrap_servers})
    async with KafkaPublisher(settings, confirmed_s=IN_USE_S) as publisher:
        first = await publisher.publish(topic, b"key", b"first", partition=0)
        assert waited_s(publisher) == 0.0
        with unreachable(cluster, Proxy.refuse):
            with pytest.raises(NotConfirmed):
                await publisher.publish(topic, b"key", b"second", partition=0)
            assert waited_s(publisher) >= IN_USE_S
        async with asyncio.timeout(PATIENCE_S):
            while waited_s(publisher) > 0.0:
                await SystemClock().wait(asyncio.Event(), 0.05)
        assert await publisher.publish(topic, b"key", b"third", partition=0) == first + 2
