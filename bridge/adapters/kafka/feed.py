"""An input topic as the consumer group hands it to this process."""

import asyncio
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from typing_extensions import override

from bridge.adapters.kafka import steady, tolerant
from bridge.adapters.kafka.connection import connection_options, milliseconds, stop_client
from bridge.errors import CannotStart
from bridge.ports import Arrival, Clock, FeedReader
from bridge.settings import Settings

_POLL_MS = 200
_MAX_RECORDS = 500
_HOLD_BACK_S = 0.02
_FETCH_BYTES = 8 * 1024 * 1024  # of one answer; a longer record still comes, in an answer of its own
_FETCH_PARTITION_BYTES = 1024 * 1024
_NEVER_MS = 2**31 - 1
_COMMIT_EVERY_S = 5.0
_STOP_S = 5.0
_SHORTER_S = 60.0
"""Longer than a leader that slept or was cut off tells of an end that is none any more, but for the rarest cases."""

_log = structlog.get_logger("feed")


class KafkaFeed:
    """Implements `bridge.ports.Feed`.

    One task reads, seeks, pauses and hands over, so that a record fetched before a seek never follows it.

    Args:
        settings: brokers and time-outs.
        topic: which.
        group: the consumer group.
        clock: for the pace of advisory commits and for health.
        shorter_s: for how long the topic must have been shorter than was read before it is taken to be another one.
    """

    def __init__(
        self, settings: Settings, *, topic: str, group: str, clock: Clock, shorter_s: float = _SHORTER_S
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._clock = clock
        self._begin: dict[int, int | None] = {}
        self._begun: set[int] = set()
        self._shorter_s = shorter_s
        self._short_since: dict[int, float] = {}
        self._stopping = asyncio.Event()
        self._read: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None

    def begin(self, partition: int, position: int | None) -> None:
        """See the port."""
        self._begin[partition] = position

    def hold(self, partition: int) -> None:
        """See the port."""
        self._begin.pop(partition, None)
        self._short_since.pop(partition, None)
        if partition in self._begun:
            self._begun.discard(partition)
            if self._consumer is not None:
                self._pause(self._consumer, {partition})

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def lag(self) -> dict[int, int]:
        """How many records lie behind each partition's position, as far as known."""
        consumer = self._consumer
        if consumer is None:
            return {}
        return {
            tp.partition: max(0, highwater - position)
            for tp, position in self._read.items()
            if tp.partition in self._begun and (highwater := consumer.highwater(tp)) is not None
        }

    async def run(self, reader: FeedReader) -> None:
        """Join the group and hand over what arrives until stopped.

        Raises:
            CannotStart: no broker answered.
            ClientDied: see `steady.check`.
        """
        kafka = self._settings.kafka
        tolerant.install()
        consumer = AIOKafkaConsumer(
            **connection_options(kafka),
            group_id=self._group,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=milliseconds(kafka.session_timeout_s),
            heartbeat_interval_ms=milliseconds(kafka.heartbeat_interval_s),
            rebalance_timeout_ms=milliseconds(kafka.rebalance_timeout_s),
            max_poll_records=_MAX_RECORDS,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_FETCH_PARTITION_BYTES,
            max_poll_interval_ms=_NEVER_MS,  # requests may stay in Kafka for as long as TAMS is away
        )
        self._consumer = consumer
        consumer.subscribe([self._topic], listener=_Listener(self, consumer, reader))
        try:
            await consumer.start()
        except KafkaError as error:
            message = f"kafka: the consumer group cannot be joined: {error}"
            raise CannotStart(message) from error
        try:
            async with asyncio.TaskGroup() as tasks:
                commits = tasks.create_task(self._commit_positions(consumer))
                await self._hand_over(consumer, reader)
                commits.cancel()
        finally:
            self._consumer = None
            await stop_client(consumer, seconds=_STOP_S)

    async def _hand_over(self, consumer: AIOKafkaConsumer, reader: FeedReader) -> None:
        while not self._stopping.is_set():
            steady.check(consumer)
            await self._begin_partitions(consumer, reader)
            if not reader.wants_more():
                # Without a pause of the consumer: that would throw away what was fetched, to fetch it once more.
                await self._clock.wait(self._stopping, _HOLD_BACK_S)
                continue
            try:
                batches = await consumer.getmany(timeout_ms=_POLL_MS)
            except KafkaError as error:
                _log.warning("fetch failed", error=str(error))
                await self._clock.wait(self._stopping, 1.0)
                continue
            for tp, records in batches.items():
                if tp.partition in self._begun and records:
                    reader.arrived(tp.partition, [_arrival(record) for record in records])
                    self._read[tp] = records[-1].offset + 1

    async def _begin_partitions(self, consumer: AIOKafkaConsumer, reader: FeedReader) -> None:
        for partition, wanted in list(self._begin.items()):
            tp = TopicPartition(self._topic, partition)
            if tp not in consumer.assignment():
                continue
            try:
                position = await self._clamped(consumer, tp, wanted)
            except KafkaError as error:
                _log.warning("cannot begin yet", partition=partition, error=str(error))
                continue
            if position is None:
                continue
            # Meanwhile its owner may have closed, or closed and opened again further on.
            if (partition, wanted) in self._begin.items() and tp in consumer.assignment():
                del self._begin[partition]
                consumer.seek(tp, position)
                self._read[tp] = position
                self._begun.add(partition)
                if wanted not in {None, position}:
                    reader.moved(partition, position)
                consumer.resume(tp)

    async def _clamped(self, consumer: AIOKafkaConsumer, tp: TopicPartition, position: int | None) -> int | None:
        """The position, or the nearest one that exists: requests may have been deleted before they were read.

        None for not yet: a topic that was made anew is read from its start, but one whose leader has not heard yet that
        another node leads now looks just the same, and to read that again would be to do everything again.
        """
        first: int = (await consumer.beginning_offsets([tp]))[tp]
        end: int = (await consumer.end_offsets([tp]))[tp]
        if position is None:
            return first
        if position < first:
            _log.error("input lost: deleted before it was read", partition=tp.partition, first=position, last=first - 1)
            return first
        if position <= end:
            self._short_since.pop(tp.partition, None)
            return position
        where, now = {"partition": tp.partition, "position": position, "end": end}, self._clock.monotonic()
        if tp.partition not in self._short_since:
            _log.warning("input shorter than its position: waiting whether it stays so", **where)
        if now - self._short_since.setdefault(tp.partition, now) < self._shorter_s:
            return None
        _log.error("input shorter than its position: read from its start", **where)
        return first

    def _pause(self, consumer: AIOKafkaConsumer, partitions: set[int]) -> None:
        assigned = consumer.assignment()
        tps = [tp for tp in (TopicPartition(self._topic, partition) for partition in partitions) if tp in assigned]
        if tps:
            consumer.pause(*tps)

    async def _commit_positions(self, consumer: AIOKafkaConsumer) -> None:
        """Tell lag tools how far we are; the ledger, not this, decides where a successor begins."""
        while True:
            await self._clock.wait(self._stopping, _COMMIT_EVERY_S)
            assigned = consumer.assignment()
            positions = {
                tp: offset for tp, offset in self._read.items() if tp in assigned and tp.partition in self._begun
            }
            if positions:
                with suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(consumer.commit(positions), _STOP_S)
            if self._stopping.is_set():
                return

    def forget_all(self) -> None:
        """The group has taken every partition back."""
        self._begin.clear()
        self._short_since.clear()
        self._begun.clear()
        self._read.clear()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    def __init__(self, feed: KafkaFeed, consumer: AIOKafkaConsumer, reader: FeedReader) -> None:
        self._feed = feed
        self._consumer = consumer
        self._reader = reader

    @override
    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing is fetched before the ledger is restored; no heartbeat is sent in here, so return at once."""
        if assigned:
            self._consumer.pause(*assigned)
        _log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))
        self._reader.assigned({tp.partition for tp in assigned})

    @override
    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._feed.forget_all()
        await self._reader.revoked()


def _arrival(record: ConsumerRecord[bytes | None, bytes | None]) -> Arrival:
    return Arrival(offset=record.offset, key=record.key, value=record.value, headers=tuple(record.headers))
