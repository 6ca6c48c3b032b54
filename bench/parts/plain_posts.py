"""The plain script that the forwarder is measured against: the same signed POSTs, and nothing kept.

Kill it, and what was under way is lost; an endpoint that fails is not tried again. Run by `python -m
bench.parts.plain_posts`, with the bridge's own settings; it reads the same orders and posts the same bodies.
"""

import asyncio
import signal
import sys
from collections import defaultdict
from datetime import UTC, datetime

import aiohttp
import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from bridge.adapters.kafka.connection import connection_options
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.vault import Vault
from bridge.core.deliveries import take_in
from bridge.core.posts import body_of, headers_of
from bridge.core.registry import Registry
from bridge.core.signatures import Signer, webhook_id
from bridge.settings import Settings, read_settings
from bridge.webhook_messages import Order


class Script:
    """Orders in, POSTs out."""

    def __init__(self, settings: Settings, registry: Registry, session: aiohttp.ClientSession) -> None:
        vault = Vault([key.get_secret_value() for key in settings.webhooks.encryption_keys])
        self._settings = settings
        self._session = session
        self._urls = {endpoint.id: endpoint.url for endpoint in registry.endpoints.values()}
        self._signers = {
            endpoint.id: Signer([vault.unseal(secret.sealed, owner=endpoint.id) for secret in endpoint.secrets])
            for endpoint in registry.endpoints.values()
        }
        self._turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(10))
        self._decode = msgspec.json.Decoder(Order).decode

    async def post(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        """Carry one order out."""
        order = self._decode(record.value)
        async with self._turns[order.endpoint_id]:
            now = datetime.now(UTC)  # noqa: TID251 -- a plain script
            body = body_of(take_in(order, now), bytes(order.event), source=self._settings.source)
            name, timestamp = webhook_id(order.endpoint_id, order.event_id), int(now.timestamp())
            signature = self._signers[order.endpoint_id].header(webhook_id=name, timestamp=timestamp, body=body)
            headers = headers_of(
                webhook_id=name, timestamp=timestamp, signature=signature, user_agent="plain script", custom={}
            )
            async with self._session.post(self._urls[order.endpoint_id], data=body, headers=headers) as answer:
                await answer.read()


async def read_registry(settings: Settings, names: TopicNames) -> Registry:
    """The endpoints as they stand."""
    registry, tp = Registry(), TopicPartition(names.endpoints, 0)
    consumer = AIOKafkaConsumer(**connection_options(settings.kafka), auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([tp])
    end = (await consumer.end_offsets([tp]))[tp]
    while await consumer.position(tp) < end:
        for record in (await consumer.getmany(tp, timeout_ms=200)).get(tp, ()):
            registry.apply(record.key, record.value)
    await consumer.stop()
    return registry


async def main() -> None:
    settings = read_settings()
    names = TopicNames.of(settings.topics)
    registry = await read_registry(settings, names)
    consumer = AIOKafkaConsumer(
        **connection_options(settings.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    consumer.assign([TopicPartition(names.dispatch, number) for number in range(settings.topics.partitions)])
    stopping, posts = asyncio.Event(), set[asyncio.Task[None]]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    sys.stderr.write("partition opened\n" * settings.topics.partitions)
    sys.stderr.flush()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        script = Script(settings, registry, session)
        while not stopping.is_set():
            for records in (await consumer.getmany(timeout_ms=200, max_records=500)).values():
                for record in records:
                    post = asyncio.create_task(script.post(record))
                    posts.add(post)
                    post.add_done_callback(posts.discard)
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main())
