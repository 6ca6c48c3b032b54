"""The log through which workers share the rate: a topic of one partition, read to its end and written by everybody."""

import asyncio
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bridge.adapters.kafka import steady, tolerant
from bridge.adapters.kafka.connection import connection_options, stop_client
from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.core.slots import READ_BACK, SlotHolder
from bridge.errors import CannotStart, NotConfirmed
from bridge.ports import Clock
from bridge.settings import Settings

_POLL_MS = 200
_CONFIRMED_S = 2.0
_RETRY_S = 0.5
_NO_KEY = b""

_log = structlog.get_logger("slots")


class KafkaSlots:
    """Reads and writes for a `SlotHolder`, from which the budget learns what calls may be made.

    Args:
        settings: brokers.
        topic: `<prefix>.budget`.
        holder: what is written, and what is made of what is read.
        clock: time.
        changed: is called when the number of slots that may be used has changed.
    """

    def __init__(
        self, settings: Settings, topic: str, holder: SlotHolder, *, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._tp = TopicPartition(topic, 0)
        self._holder = holder
        self._clock = clock
        self._changed = changed
        self._usable = 0
        self._is_other_log = False
        self.unconfirmed_since: float | None = None
        """On the monotonic clock; None while the brokers take what is written."""
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    def usable(self) -> int:
        """How many slots calls may be made with now."""
        return self._holder.usable(now=self._clock.monotonic())

    def gives_way(self) -> bool:
        """See `SlotHolder.gives_way`."""
        return self._holder.gives_way(now=self._clock.monotonic())

    def set_demand(self, load: int, wanted: int) -> None:
        """See `SlotHolder.set_demand`; cheap, to be called whenever it may have changed."""
        self._holder.set_demand(load, wanted)
        self._woken.set()

    def stop(self) -> None:
        """Make no call from now on; `run` returns once the others know, or Kafka does not answer."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Share the rate until stopped.

        While Kafka does not answer, nothing is usable after a few seconds; it goes on by itself.

        Raises:
            CannotStart: no broker answered.
            ClientDied: see `steady.check`.
        """
        tolerant.install()
        async with KafkaPublisher(self._settings, confirmed_s=_CONFIRMED_S) as publisher:
            consumer = AIOKafkaConsumer(
                **connection_options(self._settings.kafka),
                isolation_level="read_uncommitted",  # nobody's open transaction may hold the log up
                auto_offset_reset="none",
                enable_auto_commit=False,
            )
            try:
                try:
                    await consumer.start()
                except KafkaError as error:
                    message = f"kafka: {self._tp.topic} cannot be read: {error}"
                    raise CannotStart(message) from error
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(consumer))
                    await self._write(publisher)
            finally:
                await stop_client(consumer)

    # ---- reading

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign([self._tp])
        has_begun = False
        while not self._stopping.is_set():
            steady.check(consumer)
            try:
                if not has_begun or self._is_other_log:
                    await self._begin(consumer)
                    has_begun = True
                batches = await consumer.getmany(self._tp, timeout_ms=_POLL_MS)
            except OffsetOutOfRangeError:
                self._is_other_log = True
            except KafkaError as error:
                _log.warning("fetch failed", error=str(error))
                await self._clock.wait(self._stopping, _RETRY_S)
            else:
                for record in batches.get(self._tp, ()):
                    self._take_in(record.offset, record.value)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        first = (await consumer.beginning_offsets([self._tp]))[self._tp]
        end = (await consumer.end_offsets([self._tp]))[self._tp]
        position = max(first, end - READ_BACK)
        consumer.seek(self._tp, position)
        self._is_other_log = False
        self._holder.begin(position, now=self._clock.monotonic())
        _log.debug("begins to read", topic=self._tp.topic, position=position, end=end)
        self._woken.set()

    def _take_in(self, offset: int, value: bytes | None) -> None:
        before, gave_way = self._holder.worker, self.gives_way()
        self._tell()  # they may have lapsed since the record before
        self._holder.read(offset, value, now=self._clock.monotonic())
        self._tell()
        if self.gives_way():
            if not gave_way:
                _log.error("a later release shares the rate in a way this one does not know: no calls", offset=offset)
        elif self._holder.worker != before:
            _log.warning("all slots are lost: taken for dead, or the log is not what it was", offset=offset)
        self._woken.set()

    # ---- writing

    async def _write(self, publisher: KafkaPublisher) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            self._tell()
            now = self._clock.monotonic()
            record = self._holder.write(now=now)
            if record is not None:
                await self._publish(publisher, record)
                continue
            seconds = self._holder.next_at(now=now) - now
            await self._clock.wait(self._woken, None if seconds == float("inf") else max(0.0, seconds))
        last_word = self._holder.leave()
        self._tell()
        if last_word is not None:
            await self._publish(publisher, last_word)

    async def _publish(self, publisher: KafkaPublisher, record: bytes) -> None:
        read_up_to, began = self._holder.position, self._clock.monotonic()
        try:
            offset = await publisher.publish(self._tp.topic, _NO_KEY, record, partition=0)
        except NotConfirmed as error:
            _log.warning("record not confirmed", error=str(error))
            self.unconfirmed_since = began if self.unconfirmed_since is None else self.unconfirmed_since
            await self._clock.wait(self._stopping, _RETRY_S)
        else:
            self.unconfirmed_since = None
            self._is_other_log |= offset < read_up_to  # a record that is written now was read before, in another log

    def _tell(self) -> None:
        usable = self.usable()
        if usable != self._usable:
            self._usable = usable
            self._changed()
