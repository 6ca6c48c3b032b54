"""The deliveries ledger: one transactional producer per partition, and the replay that precedes it.

Records of `<prefix>.deliveries`, by key (US is the control character 0x1f, which no request id can hold):

    <endpoint id>/<event id>                      a `Delivery`; null once it has ended
    <endpoint id>/<event id> US "event"           the event's value, written once; null once the delivery has ended
    <endpoint id> US "replay" US <replay id>      a `Replay`; null once it is forgotten
    US "position"                                 offset of the next dispatch record to read
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from bridge.adapters.kafka.ledger import dead_letter_headers, read_kept, read_position, refuse_unknown_kinds
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import Record, TransactionalWriter, fenced_writer, replayed
from bridge.core.layouts import KeptReader
from bridge.core.registry import status_key
from bridge.settings import Settings
from bridge.webhook_messages import Delivery, Replay
from bridge.webhook_ports import DispatchChanges, OpenDispatch

_EVENT_SUFFIX = b"\x1fevent"
_REPLAY_MARK = b"\x1freplay\x1f"
_POSITION_KEY = b"\x1fposition"
_DELIVERIES, _REPLAYS = KeptReader(Delivery), KeptReader(Replay)


@dataclass(slots=True)
class DispatchReplay:
    """What the records of a deliveries partition add up to."""

    deliveries: dict[bytes, bytes] = field(default_factory=dict)
    events: dict[bytes, bytes] = field(default_factory=dict)
    replays: dict[bytes, bytes] = field(default_factory=dict)
    position: int | None = None

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take in one record, in the order of the partition."""
        if key == _POSITION_KEY:
            self.position = read_position(value)
        elif key.endswith(_EVENT_SUFFIX):
            _keep(self.events, key.removesuffix(_EVENT_SUFFIX), value)
        elif _REPLAY_MARK in key:
            _keep(self.replays, key, value)
        else:
            _keep(self.deliveries, key, value)

    def opened(self, ledger: "KafkaDispatchLedger") -> OpenDispatch:
        """The partition as its new owner gets it.

        Raises:
            LedgerUnavailable: a record is of a later release, or of no layout at all.
        """
        refuse_unknown_kinds(self.deliveries)
        return OpenDispatch(
            ledger=ledger,
            deliveries=read_kept(self.deliveries, _DELIVERIES),
            events={key.decode(errors="replace"): value for key, value in self.events.items()},
            replays=read_kept(self.replays, _REPLAYS),
            position=self.position,
        )


def _keep(kept: dict[bytes, bytes], key: bytes, value: bytes | None) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        kept[key] = value


class KafkaDispatchLedgers:
    """Implements `bridge.webhook_ports.DispatchLedgers`.

    Args:
        settings: brokers, topics, time-outs; the forwarder's group is the first part of the transactional ids.
        names: the topics in force.
        counts: how many partitions each topic has.
    """

    def __init__(self, settings: Settings, names: TopicNames, counts: dict[str, int]) -> None:
        self._settings = settings
        self._names = names
        self._counts = counts

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenDispatch]:
        """See the port."""
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenDispatch]:
        transactional_id = f"{self._settings.forwarder.group}.{self._names.dispatch}.{partition}"
        async with fenced_writer(self._settings, transactional_id) as writer:
            replay = DispatchReplay()
            mark = await writer.mark(self._names.deliveries, partition)
            async for record in replayed(self._settings, self._names.deliveries, partition, mark=mark):
                replay.add(record.key or b"", record.value)
            yield replay.opened(KafkaDispatchLedger(writer, self._names, self._counts, partition))


class KafkaDispatchLedger:
    """Implements `bridge.webhook_ports.DispatchLedger` for one partition, through its transactional producer."""

    def __init__(self, writer: TransactionalWriter, names: TopicNames, counts: dict[str, int], partition: int) -> None:
        self._writer = writer
        self._names = names
        self._counts = counts
        self._partition = partition
        self._encode = msgspec.json.Encoder().encode

    async def commit(self, changes: DispatchChanges) -> None:
        """See the port."""
        await self._writer.commit(self._records(changes))

    def _records(self, changes: DispatchChanges) -> Iterable[Record]:
        yield from self._state(changes)
        for attempt in changes.attempts:
            yield self._told(self._names.attempts, attempt.delivery.endpoint_id, attempt)
        for dead in changes.dead:
            yield self._told(self._names.dead_deliveries, dead.delivery.endpoint_id, dead)
        for notice in changes.notices:
            yield self._told(self._names.notices, notice.endpoint_id, notice)
        for status in changes.statuses.values():
            yield Record(self._names.statuses, 0, status_key(status.endpoint_id), self._encode(status))
        for letter in changes.dead_letters:
            arrival, topic = letter.arrival, self._names.dead_letter
            headers = dead_letter_headers(letter, self._names.dispatch, self._partition)
            yield Record(topic, self._place(topic), arrival.key, arrival.value, headers)

    def _state(self, changes: DispatchChanges) -> Iterable[Record]:
        topic, partition = self._names.deliveries, self._partition
        for delivery_id, delivery in changes.deliveries.items():
            value = None if delivery is None else self._encode(delivery)
            yield Record(topic, partition, delivery_id.encode(), value)
        for delivery_id, event in changes.events.items():
            yield Record(topic, partition, delivery_id.encode() + _EVENT_SUFFIX, event)
        for (endpoint_id, replay_id), replay in changes.replays.items():
            key = endpoint_id.encode() + _REPLAY_MARK + replay_id.encode()
            yield Record(topic, partition, key, None if replay is None else self._encode(replay))
        if changes.position is not None:
            yield Record(topic, partition, _POSITION_KEY, str(changes.position).encode())

    def _told(self, topic: str, endpoint_id: str, value: object) -> Record:
        return Record(topic, self._place(topic), endpoint_id.encode(), self._encode(value))

    def _place(self, topic: str) -> int:
        """Where in another topic what belongs to our partition lies."""
        return self._partition % self._counts[topic]
