"""Jobs in flight: what a worker that holds them weighs, and how soon it has them back."""

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen

from bench.parts.load import GRAPH
from bench.parts.stack import BRIDGE, Emulator, emulator, measured, settings_for
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.core.documents import read_job
from bridge.core.jobs import JobPolicy, accept, grant, submitted
from bridge.core.requests import JobArrival
from bridge.core.run_times import kind_of
from bridge.messages import JobRecord, JobRequest, Seen
from bridge.ports import Changes
from bridge.settings import Settings

AT_ONCE = 1000
PARAMS = json.dumps(GRAPH).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A worker with so many jobs."""

    jobs: int
    restored_s: float
    cpu_s: float
    resident_mb: float
    peak_mb: float


def measure_memory(servers: str, jobs: int) -> tuple[Held, Held]:
    """A worker without jobs, and one that takes over so many."""
    with emulator(run_s=3600, queue_s=0) as tams:
        quiet = {"tams": {"rate": 5}, "poll": {"interval_s": 3600}}
        empty = _restored(settings_for(servers, tams, **quiet), 0)
        settings = settings_for(servers, tams, **quiet)
        asyncio.run(_fill(settings, jobs, _running_job(tams)))
        return empty, _restored(settings, jobs)


def _restored(settings: Settings, jobs: int) -> Held:
    began = time.perf_counter()
    with measured(BRIDGE, settings) as worker:
        worker.await_partitions(settings.topics.partitions, seconds=120)
        seconds, usage = time.perf_counter() - began, worker.usage()
        return Held(
            jobs=jobs,
            restored_s=seconds,
            cpu_s=usage.cpu_s,
            resident_mb=usage.resident_mb,
            peak_mb=usage.peak_mb,
        )


def _running_job(tams: Emulator) -> bytes:
    """What TAMS says of a job that has just begun to run."""
    params = {**GRAPH, "script": {"classType": "EmulatorScript", "inputs": {"queue_s": 0, "run_s": 3600}}}
    key = {"Authorization": "Bearer emulator-key"}
    made = Request(f"{tams.url}/v1/jobs/workflow", json.dumps({"params": params}).encode(), key)  # noqa: S310
    with urlopen(made) as answer:  # noqa: S310 -- an emulator this bench has started
        document: bytes = answer.read()
        return document


async def _fill(settings: Settings, jobs: int, document: bytes) -> None:
    """Write the ledger of a worker that has submitted so many jobs."""
    topics = Topics(settings.kafka, settings.topics)
    counts = {state.name: state.partitions for state in await topics.check()}
    ledgers = KafkaLedgers(settings, topics.names, counts)
    for partition in range(settings.topics.partitions):
        async with ledgers.open(partition) as opened:
            numbers = range(partition, jobs, settings.topics.partitions)
            for first in range(0, len(numbers), AT_ONCE):
                records = [_copied(number, document) for number in numbers[first : first + AT_ONCE]]
                changes = Changes(position=0)
                for record in records:
                    changes.records[record.request_id] = record
                    changes.params[record.request_id] = PARAMS
                await opened.ledger.commit(changes)


def _copied(number: int, document: bytes) -> JobRecord:
    """The record of another job, of which TAMS says the same."""
    job_id = str(881417947308949275 + number)
    return record_of(number, document.replace(read_job(document).job_id.encode(), job_id.encode()))


def record_of(number: int, document: bytes, *, age_s: float = 0.0) -> JobRecord:
    """The record of a request that was submitted so long ago, and answered so."""
    now = datetime.now(UTC) - timedelta(seconds=age_s)  # noqa: TID251 -- a bench takes the real time
    policy = JobPolicy()
    name = f"order-{number:07d}"
    arrival = JobArrival(
        request_id=name,
        request=JobRequest(params={}, labels={"tenant": "acme"}),
        params=PARAMS,
        kind=kind_of(("CheckpointLoaderSimple", "KSampler")),
        headers={},
        position=f"bench.requests-0-{number}",
    )
    granted = grant(accept(arrival, policy, now).record, policy, now).record
    return submitted(granted, Seen(read_job(document)), policy, now, 0.5).record
