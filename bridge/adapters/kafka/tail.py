"""Following whole topics without a group: every process sees every record, as soon as it is committed."""

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from bridge.adapters.kafka import steady, tolerant
from bridge.adapters.kafka.connection import connection_options, stop_client
from bridge.errors import CannotStart, NotConfirmed
from bridge.ports import Clock
from bridge.settings import Settings

_POLL_MS = 200
_FETCH_PARTITION_BYTES = 1024 * 1024
_RETRY_S = 1.0
_NOT_FOLLOWED = "kafka: the topic is not followed any more, as the process ends"

_log = structlog.get_logger("tail")


class Tail:
    """Reads topics from their start, or from a little before their end, and then whatever comes.

    Args:
        settings: brokers.
        counts: the topics, each with its number of partitions.
        take: is given every committed record, those of a partition in order.
        clock: for pauses after trouble.
        recent: begin so many records before the end of each topic; at its start if None.
        check: is called before `caught_up` is set, and then after whatever was taken in; what it raises ends `run`.
    """

    def __init__(
        self,
        settings: Settings,
        counts: Mapping[str, int],
        *,
        take: "Callable[[ConsumerRecord[bytes | None, bytes | None]], None]",
        clock: Clock,
        recent: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._take = take
        self._clock = clock
        self._recent = recent
        self._check = check
        self._positions: dict[TopicPartition, int] = {}
        self._awaited: list[tuple[TopicPartition, int, asyncio.Future[None]]] = []
        self._stopping = asyncio.Event()
        self._has_ended = False
        self.caught_up = asyncio.Event()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    async def passed(self, topic: str, partition: int, offset: int) -> None:
        """Return once the record at this offset has been taken in; it must not lie before where `run` began.

        Raises:
            NotConfirmed: the topic is not followed any more.
        """
        tp = TopicPartition(topic, partition)
        if self._positions.get(tp, 0) <= offset:
            if self._has_ended:
                raise NotConfirmed(_NOT_FOLLOWED)
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.append((tp, offset, waiting))
            await waiting

    async def run(self) -> None:
        """Follow until stopped; `caught_up` is set once all that was there at the start has been taken in.

        Raises:
            CannotStart: no broker answered.
            ClientDied: see `steady.check`.
        """
        tolerant.install()
        consumer = AIOKafkaConsumer(
            **connection_options(self._settings.kafka),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH_PARTITION_BYTES,
        )
        try:
            try:
                await consumer.start()
                ends = await self._begin(consumer)
            except KafkaError as error:
                message = f"kafka: topics cannot be followed: {error}"
                raise CannotStart(message) from error
            await self._follow(consumer, ends)
        finally:
            self._has_ended = True
            for _, _, waiting in self._awaited:
                if not waiting.done():
                    waiting.set_exception(NotConfirmed(_NOT_FOLLOWED))
            await stop_client(consumer)

    async def _begin(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        tps = [TopicPartition(topic, number) for topic, count in self._counts.items() for number in range(count)]
        consumer.assign(tps)
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            first = firsts[tp]
            if self._recent is not None:
                first = max(first, ends[tp] - self._recent // self._counts[tp.topic])
            consumer.seek(tp, first)
        return {tp: end for tp, end in ends.items() if end > firsts[tp]}

    async def _follow(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        while not self._stopping.is_set():
            steady.check(consumer)
            if self.caught_up.is_set() or await self._is_past(consumer, ends):
                self._check()
                self.caught_up.set()
            try:
                batches = await consumer.getmany(timeout_ms=_POLL_MS)
            except KafkaError as error:
                _log.warning("fetch failed", error=str(error))
                await self._clock.wait(self._stopping, _RETRY_S)
                continue
            for tp, records in batches.items():
                for record in records:
                    self._take(record)
                if records:
                    self._positions[tp] = records[-1].offset + 1
            if batches and self._awaited:
                self._tell(batches.keys())

    @staticmethod
    async def _is_past(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
        """Positions count what holds no record for us, too: what compaction and aborted transactions left behind."""
        for tp, end in list(ends.items()):
            if await consumer.position(tp) < end:
                return False
            del ends[tp]
        return True

    def _tell(self, moved: Collection[TopicPartition]) -> None:
        for tp, offset, waiting in self._awaited:
            if tp in moved and self._positions[tp] > offset and not waiting.done():
                waiting.set_result(None)
        self._awaited = [each for each in self._awaited if not each[2].done()]
