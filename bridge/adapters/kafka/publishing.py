"""What the API writes: the registry, orders for forwarders, requests for workers; through one idempotent producer."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.structs import RecordMetadata

from bridge.adapters.kafka import steady
from bridge.adapters.kafka.connection import connection_options, stop_client
from bridge.adapters.kafka.tail import Tail
from bridge.core.fanout import partition_of
from bridge.errors import CannotStart, NotConfirmed
from bridge.settings import Settings
from bridge.webhook_messages import DispatchRecord

_CONFIRMED_S = 10.0
"""Longest wait for the brokers; who asked over HTTP is still there then."""

_log = structlog.get_logger("publishing")


class KafkaPublisher:
    """Publishes records and waits until all in-sync replicas have them; used as `async with KafkaPublisher(…) as …`.

    A producer that has failed for good (aiokafka does not recover an idempotent one) is replaced at the next record.

    Args:
        settings: brokers and the longest record.
        confirmed_s: longest wait for one record.
    """

    def __init__(self, settings: Settings, *, confirmed_s: float = _CONFIRMED_S) -> None:
        self._settings = settings
        self._confirmed_s = confirmed_s
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._unconfirmed: dict[asyncio.Future[RecordMetadata], float] = {}

    @property
    def unconfirmed_since(self) -> float | None:
        """When the oldest record was given to the brokers that they have not confirmed, on the event loop's clock.

        It is tried for ever, also when its writer has given up waiting; so it tells when the brokers are back.
        """
        return min(self._unconfirmed.values(), default=None)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._settings.kafka.connect_timeout_s):
                await self._running()
        except (KafkaError, TimeoutError) as error:
            message = (
                f"kafka: no broker answers at {self._settings.kafka.bootstrap_servers}: "
                "check BRIDGE_KAFKA__BOOTSTRAP_SERVERS, and that the broker runs"
            )
            raise CannotStart(message) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await stop_client(self._producer)

    async def publish(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> int:
        """Write one record.

        Args:
            topic: where to.
            key, value: None is a deletion.
            partition: chosen by the key if None.
            headers: in order.

        Returns:
            Its offset.

        Raises:
            NotConfirmed: the brokers did not say in time that they have it.
        """
        producer = None
        try:
            async with asyncio.timeout(self._confirmed_s):
                producer = await self._running()
                sent = await producer.send(topic, value, key=key, partition=partition, headers=list(headers) or None)
                self._unconfirmed[sent] = asyncio.get_running_loop().time()
                sent.add_done_callback(self._answered)
                written = await asyncio.shield(sent)
        except TimeoutError:
            if producer is not None and steady.death(producer):
                await self._discard(producer)
            raise NotConfirmed(f"kafka does not answer ({topic})") from None
        except (KafkaError, IllegalOperation) as error:
            if producer is not None and not getattr(error, "retriable", False):
                await self._discard(producer)
            raise NotConfirmed(f"kafka does not take it ({topic}): {type(error).__name__}: {error}") from error
        return int(written.offset)

    def _answered(self, sent: "asyncio.Future[RecordMetadata]") -> None:
        self._unconfirmed.pop(sent, None)
        if not sent.cancelled():
            sent.exception()  # it counts as told, also when nobody waits any more

    async def _running(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                self._producer = await self._started()
            return self._producer

    async def _started(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **connection_options(self._settings.kafka),
            acks="all",
            enable_idempotence=True,
            max_request_size=2 * self._settings.topics.max_message_bytes,
        )
        try:
            await producer.start()
        except BaseException:
            await stop_client(producer)
            raise
        return producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            self._unconfirmed.clear()
            _log.warning("producer replaced after an error")
            await stop_client(producer)


class KafkaRegistryLog:
    """Implements `bridge.api.ports.RegistryLog` on a topic of one partition.

    Args:
        publisher: writes.
        topic: the endpoints, or the API keys.
        tail: feeds our own view of this topic.
        patience_s: longest wait for our own view; it shows nothing behind a transaction that is still open, so this
            is longer than the brokers let one be.
    """

    def __init__(self, publisher: KafkaPublisher, topic: str, tail: Tail, *, patience_s: float) -> None:
        self._publisher = publisher
        self._topic = topic
        self._tail = tail
        self._patience_s = patience_s

    async def write(self, key: bytes, value: bytes | None) -> None:
        """See the port."""
        offset = await self._publisher.publish(self._topic, key, value, partition=0)
        try:
            async with asyncio.timeout(self._patience_s):
                await self._tail.passed(self._topic, 0, offset)
        except TimeoutError:
            raise NotConfirmed(f"kafka has it, but does not show it yet ({self._topic})") from None


class KafkaOrders:
    """Implements `bridge.api.ports.Orders`.

    Args:
        publisher: writes.
        topic: `<prefix>.dispatch`.
        partitions: how many it has.
    """

    def __init__(self, publisher: KafkaPublisher, topic: str, partitions: int) -> None:
        self._publisher = publisher
        self._topic = topic
        self._partitions = partitions

    async def place(self, order: DispatchRecord) -> None:
        """See the port."""
        await self._publisher.publish(
            self._topic,
            order.endpoint_id.encode(),
            msgspec.json.encode(order),
            partition=partition_of(order.endpoint_id, self._partitions),
        )


class KafkaRequests:
    """Implements `bridge.api.ports.Requests`.

    Args:
        publisher: writes.
        topic: `<prefix>.requests`.
    """

    def __init__(self, publisher: KafkaPublisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def publish(
        self, request_id: str, value: bytes, headers: Mapping[str, str], *, partition: int | None = None
    ) -> None:
        """See the port."""
        encoded = [(name, text.encode()) for name, text in headers.items()]
        await self._publisher.publish(self._topic, request_id.encode(), value, partition=partition, headers=encoded)
