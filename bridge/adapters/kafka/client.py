"""The other side of the topics: publish requests, follow events. For the commands, the demo and tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from bridge.adapters.kafka.connection import connection_options, stop_client
from bridge.adapters.kafka.topics import TopicNames, Topics
from bridge.errors import CannotStart
from bridge.messages import JobEvent
from bridge.settings import Settings

_POLL_MS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A request that went to the dead-letter topic.

    Args:
        request_id: the record's key, as text.
        reason, detail: why.
        value: the record as it was received.
    """

    request_id: str
    reason: str
    detail: str
    value: bytes


class BridgeClient:
    """Publishes requests and follows what becomes of them.

    Args:
        settings: brokers and topics.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames.of(settings.topics)
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        producer = AIOKafkaProducer(
            **connection_options(self._settings.kafka),
            acks="all",
            enable_idempotence=True,
            max_request_size=2 * self._settings.topics.max_message_bytes,
        )
        try:
            async with asyncio.timeout(self._settings.kafka.connect_timeout_s):
                await producer.start()
        except (KafkaError, TimeoutError) as error:
            await stop_client(producer)
            message = (
                f"kafka: no broker answers at {self._settings.kafka.bootstrap_servers}: "
                "check --kafka or BRIDGE_KAFKA__BOOTSTRAP_SERVERS, and that the broker runs"
            )
            raise CannotStart(message) from error
        self._producer = producer
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await stop_client(self._producer)

    async def publish(self, request_id: str, value: bytes) -> None:
        """Publish a record on the requests topic; returns once the brokers have it.

        Raises:
            CannotStart: the record is too long for the topic, or the topic is absent.
        """
        if self._producer is None:
            message = "a BridgeClient is used as `async with BridgeClient(settings) as client`"
            raise RuntimeError(message)
        try:
            await self._producer.send_and_wait(self._names.requests, value, key=request_id.encode())
        except KafkaError as error:
            message = f"kafka: {self._names.requests} does not take the request: {type(error).__name__}: {error}"
            raise CannotStart(message) from error

    async def cancel(self, request_id: str) -> None:
        """Publish a cancel for a request."""
        await self.publish(request_id, msgspec.json.encode({"cancel": request_id}))

    @asynccontextmanager
    async def following(self, *, from_start: bool = False) -> AsyncIterator[AsyncIterator[JobEvent | Parked]]:
        """Follow the result and dead-letter topics; what is published after this was entered is not missed.

        Args:
            from_start: begin with the oldest event instead of the next one.

        Raises:
            CannotStart: the topics are absent.
        """
        consumer = AIOKafkaConsumer(
            **connection_options(self._settings.kafka),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=2 * self._settings.topics.max_message_bytes,
        )
        try:
            await consumer.start()
            await self._assign(consumer, from_start=from_start)
            yield self._stream(consumer)
        finally:
            await stop_client(consumer)

    async def _assign(self, consumer: AIOKafkaConsumer, *, from_start: bool) -> None:
        counts = await Topics(self._settings.kafka, self._settings.topics).partition_counts()
        topics = [*self._names.results, self._names.dead_letter]
        absent = [topic for topic in topics if topic not in counts]
        if absent:
            message = f"kafka: there is no topic {absent[0]}: start a worker, or run `tams-bridge topics create`"
            raise CannotStart(message)
        consumer.assign([TopicPartition(name, p) for name in topics for p in range(counts[name])])
        if from_start:
            await consumer.seek_to_beginning()
        else:
            await consumer.seek_to_end()
        for tp in consumer.assignment():
            await consumer.position(tp)

    async def _stream(self, consumer: AIOKafkaConsumer) -> AsyncIterator[JobEvent | Parked]:
        while True:
            batches = await consumer.getmany(timeout_ms=_POLL_MS)
            for record in sorted((r for records in batches.values() for r in records), key=lambda r: r.timestamp):
                if record.topic == self._names.dead_letter:
                    yield _parked(record)
                elif record.value is not None:
                    yield msgspec.json.decode(record.value, type=JobEvent)


def _parked(record: "ConsumerRecord[bytes | None, bytes | None]") -> Parked:
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return Parked(
        request_id=(record.key or b"").decode(errors="replace"),
        reason=headers.get("dlq-reason", ""),
        detail=headers.get("dlq-error", ""),
        value=record.value or b"",
    )
