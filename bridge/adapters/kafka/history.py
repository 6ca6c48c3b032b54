"""Past events, for replays: the result topics, or the dead deliveries of one endpoint's partition."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from bridge.adapters.kafka.connection import connection_options, stop_client
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import kafka_errors
from bridge.core.fanout import partition_of
from bridge.settings import Settings
from bridge.webhook_messages import ReplayOrder
from bridge.webhook_ports import PastEvents

_POLL_MS = 500
_MAX_RECORDS = 200


class KafkaEventHistory:
    """Implements `bridge.webhook_ports.EventHistory`.

    Args:
        settings: brokers.
        names: the topics in force.
        counts: how many partitions each topic has.
    """

    def __init__(self, settings: Settings, names: TopicNames, counts: Mapping[str, int]) -> None:
        self._settings = settings
        self._names = names
        self._counts = counts

    async def bounds(self, order: ReplayOrder) -> tuple[dict[str, int], dict[str, int]]:
        """See the port.

        An event's record bears the event's own time, to the nearest millisecond, so offsets follow from times; a dead
        delivery's bears the time of its end, which is later, so that only the beginning does.

        Raises:
            LedgerUnavailable: the brokers did not answer.
        """
        tps = self._places(order)
        async with self._reading(tps, isolation_level="read_uncommitted") as consumer:
            with kafka_errors("replay"):
                ends = await consumer.end_offsets(tps)  # with what was committed a moment ago and is not shown yet
                firsts = await _offsets_at(consumer, tps, order.since, ends)
                if not order.failed_only:
                    ends = await _offsets_at(consumer, tps, order.until, ends, later_ms=2)
        found = [tp for tp in tps if firsts[tp] < ends[tp]]
        return {_name(tp): firsts[tp] for tp in found}, {_name(tp): ends[tp] for tp in found}

    async def read(self, positions: Mapping[str, int], ends: Mapping[str, int]) -> AsyncGenerator[PastEvents, None]:
        """See the port.

        Raises:
            LedgerUnavailable: the brokers did not answer.
        """
        left = {_place(name): end for name, end in ends.items() if positions.get(name, 0) < end}
        async with self._reading(list(left)) as consumer:
            for tp in left:
                consumer.seek(tp, positions[_name(tp)])
            left = _shortened(left, await self._ends(list(left)))
            while left:
                with kafka_errors("replay"):
                    batches = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
                    at = {tp: await consumer.position(tp) for tp in left}
                values = [
                    record.value
                    for tp, records in batches.items()
                    for record in records
                    if record.offset < left[tp] and record.value is not None
                ]
                done = {tp for tp, end in left.items() if at[tp] >= end}
                if values or done:
                    moved = {_name(tp): ends[_name(tp)] if tp in done else offset for tp, offset in at.items()}
                    yield PastEvents(values=values, positions=moved)
                left = {tp: end for tp, end in left.items() if tp not in done}

    async def _ends(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        async with self._reading(tps, isolation_level="read_uncommitted") as consumer:
            with kafka_errors("replay"):
                ends: dict[TopicPartition, int] = await consumer.end_offsets(tps)
                return ends

    def _places(self, order: ReplayOrder) -> list[TopicPartition]:
        if order.failed_only:
            dead = self._names.dead_deliveries
            partition = partition_of(order.endpoint_id, self._counts[self._names.deliveries])
            return [TopicPartition(dead, partition % self._counts[dead])]
        return [TopicPartition(name, number) for name in self._names.results for number in range(self._counts[name])]

    @asynccontextmanager
    async def _reading(
        self, tps: Collection[TopicPartition], *, isolation_level: str = "read_committed"
    ) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **connection_options(self._settings.kafka),
            isolation_level=isolation_level,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        try:
            with kafka_errors("replay"):
                await consumer.start()
            consumer.assign(tps)
            yield consumer
        finally:
            await stop_client(consumer)


async def _offsets_at(
    consumer: AIOKafkaConsumer,
    tps: Collection[TopicPartition],
    moment: datetime,
    ends: Mapping[TopicPartition, int],
    *,
    later_ms: int = 0,
) -> dict[TopicPartition, int]:
    """The offset of the first record at or after a moment, in each partition; its end if there is none.

    People may ask for any time there is in a calendar; Kafka's begins with 1970.
    """
    since = max(0, int(moment.timestamp() * 1000) + later_ms)
    found = await consumer.offsets_for_times(dict.fromkeys(tps, since))
    return {tp: ends[tp] if found[tp] is None else min(found[tp].offset, ends[tp]) for tp in tps}


def _shortened(wanted: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Where to stop: a topic that was made anew since may have become too short ever to reach the end wanted."""
    return {tp: min(end, ends[tp]) for tp, end in wanted.items()}


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"


def _place(name: str) -> TopicPartition:
    topic, _, partition = name.rpartition("-")
    return TopicPartition(topic, int(partition))
