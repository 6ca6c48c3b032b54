"""What every partition owner does with Kafka: fence the former one, mark the ledger, replay, write in transactions.

Fencing makes sure that nothing older can become visible any more; the mark, that all that is visible is seen. A broker
that slept or was cut off goes on telling the end of a partition as it knew it, for as long as it has not heard that
another one leads it now: an owner that believed it would not know of jobs that are paid. It cannot take a record,
though, since those in sync no longer follow it. So the end of a replay is where a record of ours has just been put.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder

from bridge.adapters.kafka.connection import connection_options, milliseconds, stop_client
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.settings import Settings

_BATCH_BYTES = 512 * 1024
_POLL_MS = 500
_FETCH_BYTES = 1024 * 1024  # of one answer; a longer record still comes, in an answer of its own

MARK_KEY = b"\x1fopened"
"""Of the record that ends a replay: a tombstone of nothing, which whoever reads a ledger passes over."""

Header = tuple[str, bytes | None]


@dataclass(slots=True)
class Record:
    """One record to write.

    Args:
        topic, partition: where to.
        key, value: bytes, or None for none.
        headers: in order.
        timestamp: milliseconds since 1970; the time of writing if None.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    timestamp: int | None = None

    def is_added_to(self, batch: BatchBuilder) -> bool:
        """False if the batch is full."""
        added = batch.append(key=self.key, value=self.value, headers=list(self.headers), timestamp=self.timestamp)
        return added is not None


class TransactionalWriter:
    """Writes records in transactions, as the one producer of its transactional id that Kafka still listens to.

    Args:
        producer: started.
        timeout_s: longest time for a transaction.
    """

    def __init__(self, producer: AIOKafkaProducer, *, timeout_s: float) -> None:
        self._producer = producer
        self._timeout_s = timeout_s

    async def commit(self, records: Iterable[Record]) -> None:
        """Write all of them, or none, each topic's in the order given.

        Raises:
            OwnershipLost: another owner has taken over; nothing was written.
            LedgerUnavailable: it failed, or its outcome is unknown; taking the partition over again will tell.
        """
        with kafka_errors("commit"):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                await self._write(records)
                await self._producer.commit_transaction()

    async def mark(self, topic: str, partition: int) -> int:
        """Put a mark at the end of a partition: a replay up to it misses nothing that was committed before.

        Returns:
            Its offset.

        Raises:
            OwnershipLost, LedgerUnavailable: see `commit`.
        """
        with kafka_errors("open"):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                written = await self._producer.send_and_wait(topic, None, key=MARK_KEY, partition=partition)
                await self._producer.commit_transaction()
        return int(written.offset)

    async def _write(self, records: Iterable[Record]) -> None:
        """Send everything and wait for every answer: a commit alone does not tell of a failed batch."""
        by_place: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            by_place.setdefault((record.topic, record.partition), []).append(record)
        sent: list[asyncio.Future[object]] = []
        refusal = None
        try:
            for (topic, partition), placed in by_place.items():
                for batch in self._batches(placed):
                    sent.append(await self._producer.send_batch(batch, topic, partition=partition))
                    sent[-1].add_done_callback(_heard)  # one that fails after another has failed is awaited by nobody
        except IllegalOperation as error:  # a batch before has failed meanwhile, and its answer tells why
            refusal = error
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        if refusal is not None:
            raise refusal

    def _batches(self, records: Sequence[Record]) -> Iterable[BatchBuilder]:
        batch = self._producer.create_batch()
        for record in records:
            if not record.is_added_to(batch):
                yield batch
                batch = self._producer.create_batch()
                record.is_added_to(batch)
        yield batch


@asynccontextmanager
async def fenced_writer(settings: Settings, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
    """Fence whoever held this transactional id before; when this returns, nothing older can become visible any more.

    Raises:
        OwnershipLost: somebody took it over in the meantime.
        LedgerUnavailable: the broker did not answer in time.
    """
    kafka = settings.kafka
    producer = AIOKafkaProducer(
        **connection_options(kafka),
        transactional_id=transactional_id,
        transaction_timeout_ms=milliseconds(kafka.transaction_timeout_s),
        acks="all",
        max_batch_size=_BATCH_BYTES,
        max_request_size=2 * settings.topics.max_message_bytes,
    )
    try:
        with kafka_errors("open"):
            async with asyncio.timeout(kafka.transaction_timeout_s):
                await producer.start()
        yield TransactionalWriter(producer, timeout_s=kafka.transaction_timeout_s)
    finally:
        await _stop(producer)


async def replayed(
    settings: Settings, topic: str, partition: int, *, mark: int
) -> "AsyncIterator[ConsumerRecord[bytes | None, bytes | None]]":
    """All committed records of a partition up to a mark.

    Args:
        settings: brokers.
        topic, partition: which.
        mark: where `TransactionalWriter.mark` has just put it.

    Raises:
        LedgerUnavailable: the broker did not answer in time.
    """
    tp = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        **connection_options(settings.kafka),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    try:
        with kafka_errors("replay"):
            patience_s = settings.kafka.request_timeout_s
            async with asyncio.timeout(patience_s):
                await consumer.start()
                consumer.assign([tp])
            empty_s = 0.0
            while await _position(consumer, tp, patience_s) <= mark:
                batches = await consumer.getmany(tp, timeout_ms=_POLL_MS)
                for record in batches.get(tp, ()):
                    yield record
                empty_s = 0.0 if batches else empty_s + _POLL_MS / 1000
                if empty_s >= patience_s:
                    raise TimeoutError  # by itself the client would wait for the brokers for ever
    finally:
        await stop_client(consumer)


async def _position(consumer: AIOKafkaConsumer, tp: TopicPartition, seconds: float) -> int:
    async with asyncio.timeout(seconds):
        position: int = await consumer.position(tp)
        return position


@contextmanager
def kafka_errors(doing: str) -> Iterator[None]:
    """Translate what the client raises; after either error a producer is of no more use."""
    try:
        yield
    except ProducerFenced as error:
        message = f"{doing}: another owner has taken the partition over"
        raise OwnershipLost(message) from error
    except TimeoutError as error:
        message = f"{doing}: no answer from the brokers in time"
        raise LedgerUnavailable(message) from error
    except (KafkaError, IllegalOperation, OSError) as error:
        message = f"{doing}: {type(error).__name__}: {error}"
        raise LedgerUnavailable(message) from error


def _heard(answer: "asyncio.Future[object]") -> None:
    """Count an error as told, which asyncio would else report once more when it forgets the future."""
    if not answer.cancelled():
        answer.exception()


async def _stop(producer: AIOKafkaProducer) -> None:
    """Close a producer that may have been fenced."""
    for waiter in _holding_errors(producer):
        waiter.add_done_callback(_heard)
    await stop_client(producer)


def _holding_errors(producer: AIOKafkaProducer) -> Iterator["asyncio.Future[object]"]:
    """What the client leaves behind once it was fenced, and nobody waits for: of the transaction and unsent batches."""
    end_of_transaction = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001
    if end_of_transaction is not None:
        yield end_of_transaction
    for batches in producer._message_accumulator._batches.values():  # noqa: SLF001
        yield from (batch._drain_waiter for batch in batches)  # noqa: SLF001
