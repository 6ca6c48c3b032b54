"""The ledger: one transactional producer per partition, and the replay that precedes it.

Records of `<prefix>.jobs`, by key:

    <request id>              a `JobRecord`; null once it is forgotten
    <request id> US "params"  the request's graph, written once; null once the job has ended
    US "position"             offset of the next request to read

US is the control character 0x1f, which no request id can hold. Why the order of steps: stack.md, "transactions".
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from bridge.adapters.kafka.connection import milliseconds
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import Record, TransactionalWriter, fenced_writer, replayed
from bridge.core.fanout import is_webhook, partition_of
from bridge.core.layouts import UNREADABLE, KeptReader, KeptT
from bridge.errors import LedgerUnavailable, NewerLayout
from bridge.messages import JobEvent, JobRecord
from bridge.ports import Changes, DeadLetter, OpenLedger
from bridge.settings import Settings
from bridge.webhook_messages import Order

_US = b"\x1f"
_DETAIL_SHOWN = 500
_JOBS = KeptReader(JobRecord)
_PARAMS_SUFFIX = b"\x1fparams"
_POSITION_KEY = b"\x1fposition"


@dataclass(slots=True)
class Replay:
    """What the records of a ledger partition add up to."""

    records: dict[bytes, bytes] = field(default_factory=dict)
    params: dict[bytes, bytes] = field(default_factory=dict)
    position: int | None = None

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take in one record, in the order of the partition."""
        if key == _POSITION_KEY:
            self.position = read_position(value)
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
            LedgerUnavailable: a record is of a later release, or of no layout at all, or what belongs to it is missing.
        """
        refuse_unknown_kinds(self.records)
        records = read_kept(self.records, _JOBS)
        params = {key.decode(errors="replace"): value for key, value in self.params.items()}
        for key, record in zip(self.records, records, strict=True):
            lacking = _lacking(key, record, params)
            if lacking is not None:
                message = f"the ledger holds, under {key[:200]!r}, a job without {lacking}"
                raise LedgerUnavailable(message)
        return records, params


def _lacking(key: bytes, record: JobRecord, params: Mapping[str, bytes]) -> str | None:
    """What is missing of a job that its owner would need sooner or later."""
    if key != record.request_id.encode():
        return "the id that it is kept under"
    if record.request_id not in params and not record.phase.is_terminal:
        return "its graph"
    return "a readable webhook" if record.webhook and not is_webhook(record.webhook) else None


def read_position(value: bytes | None) -> int | None:
    """The position in the input topic that a ledger names.

    Raises:
        LedgerUnavailable: it is none.
    """
    try:
        return None if value is None else int(value)
    except ValueError as error:
        message = "the ledger holds a position that cannot be read"
        raise LedgerUnavailable(message) from error


def read_kept(kept: Mapping[bytes, bytes], reader: KeptReader[KeptT]) -> list[KeptT]:
    """Read all records of one kind, or none: an owner that knew but some of its jobs would begin the rest anew.

    Raises:
        LedgerUnavailable: one of them cannot be read.
    """
    records = []
    for key, value in kept.items():
        try:
            records.append(reader.read(value))
        except NewerLayout as error:
            message = f"the ledger holds {error}"
            raise LedgerUnavailable(message) from error
        except UNREADABLE as error:
            message = (
                f"the ledger holds a record that cannot be read, under {key[:200]!r}: {str(error)[:_DETAIL_SHOWN]}"
            )
            raise LedgerUnavailable(message) from error
    return records


def refuse_unknown_kinds(keys: Iterable[bytes]) -> None:
    """Pass over no record whose meaning is not known.

    Args:
        keys: of records that are of no other known kind.

    Raises:
        LedgerUnavailable: one of the keys is no mere id.
    """
    for key in keys:
        if _US in key:
            message = (
                f"the ledger holds, under {key[:200]!r}, a kind of record that this release does not know: "
                "run the release again that wrote it"
            )
            raise LedgerUnavailable(message)


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
        transactional_id = f"{self._settings.worker.group}.{self._names.requests}.{partition}"
        async with fenced_writer(self._settings, transactional_id) as writer:
            replay = Replay()
            mark = await writer.mark(self._names.jobs, partition)
            async for record in replayed(self._settings, self._names.jobs, partition, mark=mark):
                replay.add(record.key or b"", record.value)
            records, params = replay.decoded()
            yield OpenLedger(
                ledger=KafkaLedger(writer, self._settings, self._names, self._counts, partition),
                records=records,
                params=params,
                position=replay.position,
            )


class KafkaLedger:
    """Implements `bridge.ports.Ledger` for one partition, through its transactional producer."""

    def __init__(
        self,
        writer: TransactionalWriter,
        settings: Settings,
        names: TopicNames,
        counts: dict[str, int],
        partition: int,
    ) -> None:
        self._writer = writer
        self._names = names
        self._counts = counts
        self._partition = partition
        self._source = settings.source.encode()
        self._encode = msgspec.json.Encoder().encode

    async def commit(self, changes: Changes) -> None:
        """See the port."""
        await self._writer.commit(self._records(changes))

    def _records(self, changes: Changes) -> Iterable[Record]:
        yield from self._state(changes)
        yield from (self._event(event, record.headers or {}) for event, record in changes.events)
        yield from (self._order(order) for order in changes.orders)
        yield from (self._parked(letter) for letter in changes.dead_letters)

    def _state(self, changes: Changes) -> Iterable[Record]:
        topic, partition = self._names.jobs, self._partition
        for request_id, record in changes.records.items():
            value = None if record is None else self._encode(record)
            yield Record(topic, partition, request_id.encode(), value)
        for request_id, params in changes.params.items():
            yield Record(topic, partition, request_id.encode() + _PARAMS_SUFFIX, params)
        if changes.position is not None:
            yield Record(topic, partition, _POSITION_KEY, str(changes.position).encode())

    def _event(self, event: JobEvent, copied: Mapping[str, str]) -> Record:
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
        topic, timestamp = self._names.events[event.type], milliseconds(event.time.timestamp())
        return Record(topic, self._place(topic), event.request_id.encode(), self._encode(event), headers, timestamp)

    def _order(self, order: Order) -> Record:
        topic = self._names.dispatch
        partition = partition_of(order.endpoint_id, self._counts[topic])
        return Record(topic, partition, order.endpoint_id.encode(), self._encode(order))

    def _parked(self, letter: DeadLetter) -> Record:
        arrival, topic = letter.arrival, self._names.dead_letter
        headers = dead_letter_headers(letter, self._names.requests, self._partition)
        return Record(topic, self._place(topic), arrival.key, arrival.value, headers)

    def _place(self, topic: str) -> int:
        """Where in another topic what belongs to our partition lies."""
        return self._partition % self._counts[topic]


def dead_letter_headers(letter: DeadLetter, topic: str, partition: int) -> list[tuple[str, bytes | None]]:
    """The headers of a record that is parked: its own, then where it came from and why."""
    reasons = {
        "dlq-reason": letter.reason,
        "dlq-error": letter.detail,
        "dlq-topic": topic,
        "dlq-partition": str(partition),
        "dlq-offset": str(letter.arrival.offset),
        "dlq-time": letter.time.isoformat(),
    }
    return [*letter.arrival.headers, *((name, value.encode()) for name, value in reasons.items())]
