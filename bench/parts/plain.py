"""The plain script the bridge is measured against: the same calls and the same events, and nothing kept.

Kill it, and jobs are lost and paid for again; that is what the bridge costs more for.
Run by `python -m bench.parts.plain`, with the bridge's own settings.
"""

import asyncio
import signal
import sys
from datetime import UTC, datetime

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.connection import connection_options
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.messages import EventType, JobEvent, JobView, Seen
from bridge.settings import Settings, read_settings

ENDS = {"SUCCESS": EventType.SUCCESS, "FAILED": EventType.FAILED, "CANCELED": EventType.CANCELED}


class _Request(msgspec.Struct):
    params: msgspec.Raw


class Script:
    """Requests in, events out."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, tams: TamsClient) -> None:
        self._producer = producer
        self._tams = tams
        self._names = TopicNames.of(settings.topics)
        self._interval = settings.poll.interval_s
        self._calls = asyncio.Semaphore(settings.tams.concurrency)
        self._source = settings.source.encode()
        self._encoder = msgspec.json.Encoder()

    async def run_job(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        """Carry one request through."""
        request_id = record.key.decode()
        params = msgspec.json.decode(record.value, type=_Request).params
        await self._tell(request_id, 1, EventType.ACCEPTED, None)
        view, sequence = await self._create(f"{request_id}-1", bytes(params)), 2
        await self._tell(request_id, sequence, EventType.SUBMITTED, view)
        while view.status not in ENDS:
            before = view
            await asyncio.sleep(self._interval)  # noqa: TID251 -- a plain script
            async with self._calls:
                answer = await self._tams.look(view.job_id)
            view = answer.view if isinstance(answer, Seen) else view
            if view.status in ENDS or _standing(view) != _standing(before):
                sequence += 1
                await self._tell(request_id, sequence, ENDS.get(view.status, EventType.RUNNING), view)

    async def _create(self, tams_request_id: str, params: bytes) -> JobView:
        while True:
            async with self._calls:
                answer = await self._tams.create(tams_request_id, params)
            if isinstance(answer, Seen):
                return answer.view

    async def _tell(self, request_id: str, sequence: int, kind: EventType, view: JobView | None) -> None:
        event = JobEvent(
            id=f"{request_id}.{sequence}",
            type=kind,
            time=datetime.now(UTC),  # noqa: TID251 -- a plain script
            request_id=request_id,
            sequence=sequence,
            attempt=1,
            labels={},
            job=view.document if view else msgspec.Raw(),
        )
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_source", self._source),
            ("ce_type", event.type.encode()),
            ("ce_time", event.time.isoformat().encode()),
            ("ce_subject", request_id.encode()),
            ("ce_sequence", f"{sequence:010d}".encode()),
            ("content-type", b"application/json"),
        ]
        topic, value = self._names.events[kind], self._encoder.encode(event)
        await self._producer.send(topic, value, key=request_id.encode(), headers=headers)


def _standing(view: JobView) -> tuple[object, ...]:
    return view.status, view.queue_rank, view.progress, view.finished_nodes


async def main() -> None:
    settings, clock = read_settings(), SystemClock()
    options = connection_options(settings.kafka)
    consumer = AIOKafkaConsumer(
        TopicNames.of(settings.topics).requests,
        **options,
        group_id=settings.worker.group,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(**options, acks="all")
    transport = fast_transport(settings.tams)
    tams = TamsClient(settings.tams, scheme=authorization(settings.tams, clock=clock), transport=transport, clock=clock)
    await consumer.start()
    await producer.start()
    script, jobs = Script(settings, producer, tams), set[asyncio.Task[None]]()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    sys.stderr.write("partition opened\n" * settings.topics.partitions)
    sys.stderr.flush()
    while not stopping.is_set():
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                job = asyncio.create_task(script.run_job(record))
                jobs.add(job)
                job.add_done_callback(jobs.discard)
    await producer.stop()
    await consumer.stop()
    await tams.aclose()


if __name__ == "__main__":
    uvloop.run(main())
