"""The ledger: one transactional producer per partition, and the replay that precedes it.

Records of `<prefix>.jobs`, by key:

    <request id>              a `JobRecord`; null once it is forgotten
    <request id> US "params"  the request's graph, written once; null once the job has ended
    US "position"             offset of the next request to read

US is the control character 0x1f, which no request id can hold. Why the order of steps: stack.md, "transactions".
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder

from bridge.adapters.kafka.connection import connection_options, milliseconds
from bridge.adapters.kafka.topics import TopicNames
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.messages import JobEvent, JobRecord
from bridge.ports import Changes, DeadLetter, OpenLedger
from bridge.settings import Settings

_PARAMS_SUFFIX = b"\x1fparams"
_POSITION_KEY = b"\x1fposition"
_BATCH_BYTES = 512 * 1024
_STOP_S = 3.0
_POLL_MS = 500
_FETCH_BYTES = 1024 * 1024  # of one answer; a longer record still comes, in an answer of its own

Header = tuple[str, bytes | None]


@dataclass(slots=True)
class Replay:
    """What the records of a ledger partition add up to."""

    records: dict[bytes, bytes] = field(default_factory=dict)
    params: dict[bytes, bytes] = field(default_factory=dict)
    position: int | None = None

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take in one record, in the order of the partition."""
        if key == _POSITION_KEY:
            self.position = None if value is None else int(value)
            return
        is_params = key.endswith(_PARAMS_SUFFIX)
        kept, key = (self.params, key.removesuffix(_PARAMS_SUFFIX)) if is_params else (self.records, key)
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value

    def decoded(self) -> tuple[list[JobRecord], dict[str, bytes]]:
        """The jobs and their graphs.

        Raises:
            LedgerUnavailable: a record is not of a layout this version knows.
        """
        decoder = msgspec.json.Decoder(JobRecord)
        try:
            records = [decoder.decode(value) for value in self.records.values()]
        except msgspec.DecodeError as error:
            message = f"the ledger holds a record that cannot be read: {error}"
            raise LedgerUnavailable(message) from error
        return records, {key.decode(): value for key, value in self.params.items()}


class KafkaLedgers:
    """Implements `bridge.ports.Ledgers`.

    Args:
        settings: brokers, topics, time-outs; the worker's group is the first part of the transactional ids.
        names: the topics in force.
        counts: how many partitions each event and dead-letter topic has.
    """

    def __init__(self, settings: Settings, names: TopicNames, counts: dict[str, int]) -> None:
        self._settings = settings
        self._names = names
        self._counts = counts

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        """See the port."""
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenLedger]:
        kafka = self._settings.kafka
        producer = AIOKafkaProducer(
            **connection_options(kafka),
            transactional_id=f"{self._settings.worker.group}.{self._names.requests}.{partition}",
            transaction_timeout_ms=milliseconds(kafka.transaction_timeout_s),
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=2 * self._settings.topics.max_message_bytes,
        )
        try:
            with _kafka_errors("open"):
                async with asyncio.timeout(kafka.transaction_timeout_s):
                    await producer.start()
                replay = await self._replay(partition)
            records, params = replay.decoded()
            yield OpenLedger(
                ledger=KafkaLedger(producer, self._settings, self._names, self._counts, partition),
                records=records,
                params=params,
                position=replay.position,
            )
        finally:
            await _stop(producer)

    async def _replay(self, partition: int) -> Replay:
        """Read the whole partition up to the end as it is now that the former owner is fenced."""
        tp = TopicPartition(self._names.jobs, partition)
        consumer = AIOKafkaConsumer(
            **connection_options(self._settings.kafka),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        replay = Replay()
        try:
            await consumer.start()
            consumer.assign([tp])
            end = (await consumer.end_offsets([tp]))[tp]
            while await consumer.position(tp) < end:
                batches = await consumer.getmany(tp, timeout_ms=_POLL_MS)
                for record in batches.get(tp, ()):
                    replay.add(record.key, record.value)
        finally:
            with suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(consumer.stop(), _STOP_S)
        return replay


class KafkaLedger:
    """Implements `bridge.ports.Ledger` for one partition, through its transactional producer."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        settings: Settings,
        names: TopicNames,
        counts: dict[str, int],
        partition: int,
    ) -> None:
        self._producer = producer
        self._names = names
        self._counts = counts
        self._partition = partition
        self._source = settings.source.encode()
        self._timeout = settings.kafka.transaction_timeout_s
        self._encoder = msgspec.json.Encoder()

    async def commit(self, changes: Changes) -> None:
        """See the port."""
        with _kafka_errors("commit"):
            async with asyncio.timeout(self._timeout):
                await self._producer.begin_transaction()
                await self._write(changes)
                await self._producer.commit_transaction()

    async def _write(self, changes: Changes) -> None:
        """Send everything and wait for every answer: a commit alone does not tell of a failed batch."""
        by_topic: dict[str, list[_Record]] = {self._names.jobs: list(self._state(changes))}
        for event, headers in changes.events:
            by_topic.setdefault(self._names.events[event.type], []).append(self._event(event, headers))
        if changes.dead_letters:
            parked = [self._parked(letter) for letter in changes.dead_letters]
            by_topic.setdefault(self._names.dead_letter, []).extend(parked)
        sent = []
        for topic, records in by_topic.items():
            partition = self._partition % self._counts[topic]
            for batch in self._batches(records):
                sent.append(await self._producer.send_batch(batch, topic, partition=partition))
                sent[-1].add_done_callback(_heard)  # one that fails after another has failed is awaited by nobody
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    def _state(self, changes: Changes) -> Iterable["_Record"]:
        encode = self._encoder.encode
        for request_id, record in changes.records.items():
            yield _Record(request_id.encode(), None if record is None else encode(record))
        for request_id, params in changes.params.items():
            yield _Record(request_id.encode() + _PARAMS_SUFFIX, params)
        if changes.position is not None:
            yield _Record(_POSITION_KEY, str(changes.position).encode())

    def _event(self, event: JobEvent, copied: Mapping[str, str]) -> "_Record":
        """CloudEvents 1.0, Kafka protocol binding, binary mode; `sequence` is the extension of that name."""
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_source", self._source),
            ("ce_type", event.type.encode()),
            ("ce_time", event.time.isoformat().encode()),
            ("ce_subject", event.request_id.encode()),
            ("ce_sequence", f"{event.sequence:010d}".encode()),
            ("content-type", b"application/json"),
            *((name, value.encode()) for name, value in copied.items()),
        ]
        timestamp = milliseconds(event.time.timestamp())
        return _Record(event.request_id.encode(), self._encoder.encode(event), headers, timestamp)

    def _parked(self, letter: DeadLetter) -> "_Record":
        arrival = letter.arrival
        reasons = {
            "dlq-reason": letter.reason,
            "dlq-error": letter.detail,
            "dlq-topic": self._names.requests,
            "dlq-partition": str(self._partition),
            "dlq-offset": str(arrival.offset),
            "dlq-time": letter.time.isoformat(),
        }
        headers = [*arrival.headers, *((name, value.encode()) for name, value in reasons.items())]
        return _Record(arrival.key, arrival.value, headers)

    def _batches(self, records: Sequence["_Record"]) -> Iterable[BatchBuilder]:
        batch = self._producer.create_batch()
        for record in records:
            if not record.is_added_to(batch):
                yield batch
                batch = self._producer.create_batch()
                record.is_added_to(batch)
        yield batch


@dataclass(slots=True)
class _Record:
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    timestamp: int | None = None

    def is_added_to(self, batch: BatchBuilder) -> bool:
        """False if the batch is full."""
        added = batch.append(key=self.key, value=self.value, headers=list(self.headers), timestamp=self.timestamp)
        return added is not None


@contextmanager
def _kafka_errors(doing: str) -> Iterator[None]:
    """Translate what the client raises; after either error the producer is of no more use."""
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
    """Close a producer; one that hangs with the brokers gone is left behind."""
    end_of_transaction = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001  holds what fenced us
    if end_of_transaction is not None:
        end_of_transaction.add_done_callback(_heard)
    with suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(producer.stop(), _STOP_S)
