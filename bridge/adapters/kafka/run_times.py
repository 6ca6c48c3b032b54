"""What workers have learned of run times, kept in a compacted topic: read at the start, written now and then."""

import asyncio
from collections.abc import Mapping

import msgspec
import structlog
from aiokafka import ConsumerRecord

from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.adapters.kafka.tail import Tail
from bridge.core.layouts import UNREADABLE
from bridge.core.run_times import KindRecord, RunTimes
from bridge.errors import NotConfirmed
from bridge.ports import Clock
from bridge.settings import Settings

_WRITE_EVERY_S = 10.0
_SEPARATOR = ":"

_log = structlog.get_logger("run times")


class KafkaRunTimes:
    """Keeps what was learned: one record for each kind, under `<name>:<kind>`.

    Several workers write the same keys, and each adopts what another knows better; losing some of it is no harm.

    Args:
        settings: brokers.
        topic: `<prefix>.run-times`, of one partition.
        learned: what is kept, by name.
        publisher: writes.
        clock: for pauses.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        learned: Mapping[str, RunTimes],
        *,
        publisher: KafkaPublisher,
        clock: Clock,
    ) -> None:
        self._topic = topic
        self._learned = learned
        self._publisher = publisher
        self._clock = clock
        self._stopping = asyncio.Event()
        self.tail = Tail(settings, {topic: 1}, take=self._take, clock=clock)

    def stop(self) -> None:
        """End `run`, after writing once more."""
        self._stopping.set()

    async def run(self) -> None:
        """Write what has changed every few seconds until stopped."""
        while not self._stopping.is_set():
            await self._clock.wait(self._stopping, _WRITE_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        for name, run_times in self._learned.items():
            for kind, record in run_times.take_changed().items():
                key = f"{name}{_SEPARATOR}{kind}".encode()
                try:
                    await self._publisher.publish(self._topic, key, msgspec.json.encode(record), partition=0)
                except NotConfirmed as error:  # the kind is written again when it has changed again
                    _log.warning("not kept", error=str(error))
                    return

    def _take(self, record: "ConsumerRecord[bytes | None, bytes | None]") -> None:
        name, _, kind = (record.key or b"").decode(errors="replace").partition(_SEPARATOR)
        run_times = self._learned.get(name)
        if run_times is None or record.value is None:
            return
        try:
            run_times.adopt(kind, msgspec.json.decode(record.value, type=KindRecord))
        except UNREADABLE:
            _log.warning("unreadable record passed over", topic=self._topic, offset=record.offset)
