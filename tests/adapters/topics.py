"""Topics as a stranger sees them: written and read with plain clients, in any shape."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from typing_extensions import override

from bridge.adapters.clock import SystemClock
from bridge.settings import Settings, read_settings
from tests.brokers import RunningBroker

Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"
Headers = Sequence[tuple[str, bytes | None]]

PARTITIONS = 2
_PATIENCE_S = 20


def settings_for(broker: RunningBroker, prefix: str, **sections: Mapping[str, object]) -> Settings:
    """Settings of a bridge whose topics, group and transactional ids nobody else has."""
    given: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap_servers": broker.bootstrap_servers, "connect_timeout_s": 10},
        "topics": {"prefix": prefix, "partitions": PARTITIONS},
        "worker": {"group": prefix},
        "forwarder": {"group": f"{prefix}.forwarder"},
        "http": {"port": 0},
    }
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return read_settings(**given)


@asynccontextmanager
async def administering(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def make_topic(servers: str, name: str, partitions: int = PARTITIONS, **config: str) -> None:
    """Create a topic; configuration names are written with underscores."""
    configs = {key.replace("_", "."): value for key, value in config.items()}
    async with administering(servers) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
        async with asyncio.timeout(_PATIENCE_S):
            while not await _has_leaders(admin, name):
                await SystemClock().wait(asyncio.Event(), 0.05)


async def _has_leaders(admin: AIOKafkaAdminClient, name: str) -> bool:
    described = await admin.describe_topics()
    return any(
        topic["topic"] == name and all(partition["leader"] >= 0 for partition in topic["partitions"])
        for topic in described
    )


@asynccontextmanager
async def producing(servers: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A plain producer."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=20_000_000, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _high_watermark(servers: str, tp: TopicPartition) -> int:
    """The end with what was committed a moment ago: its marker may not lie in the partition yet."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        return int((await consumer.end_offsets([tp]))[tp])
    finally:
        await consumer.stop()


async def committed(servers: str, topic: str, partition: int = 0) -> list[Record]:
    """All that a reader of committed records finds in a partition now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=20_000_000,
    )
    await consumer.start()
    try:
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        end = await _high_watermark(servers, tp)
        found: list[Record] = []
        async with asyncio.timeout(_PATIENCE_S):
            while await consumer.position(tp) < end:
                found += (await consumer.getmany(tp, timeout_ms=200)).get(tp, [])
        return found
    finally:
        await consumer.stop()


class RawName(str):
    """A header's name that is written as bytes which are no UTF-8."""

    __slots__ = ()

    @override
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


async def produce_odd_headers(
    producer: AIOKafkaProducer, topic: str, values: Sequence[tuple[bytes | None, bytes, Headers]], partition: int = 0
) -> None:
    """Write records in one batch, past the client's checks: names of headers may be any bytes."""
    batch = producer.create_batch()
    batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 1_000_000)
    now = int(SystemClock().now().timestamp() * 1000)
    for key, value, headers in values:
        batch.append(timestamp=now, key=key, value=value, headers=list(headers))
    await (await producer.send_batch(batch, topic, partition=partition))
