"""A worker that meets what a later release has written: it does nothing on a guess, and says so."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import msgspec
import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.topics import Topics
from bridge.errors import CannotStart
from bridge.messages import JobRecord, Phase
from bridge.roles.ground import lay_ground
from bridge.runtime import run_roles
from tests.adapters.topics import producing
from tests.brokers import RunningBroker
from tests.integration.stack import quick_settings

PATIENCE_S = 40
CLOCK = SystemClock()


async def test_a_partition_whose_ledger_a_later_release_has_written_waits_and_health_says_why(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """The others are worked on; once the record is one that can be read, the partition is opened without a restart."""
    [port] = free_ports(1)
    settings = quick_settings(broker.bootstrap_servers, topic_prefix, "http://127.0.0.1:9", http={"port": port})
    await Topics(settings.kafka, settings.topics).create()
    job = JobRecord(request_id="a", phase=Phase.SUCCESS, accepted_at=CLOCK.now(), version=2)
    stop = asyncio.Event()
    async with producing(broker.bootstrap_servers) as producer, httpx.AsyncClient(trust_env=False) as http:
        jobs = f"{topic_prefix}.jobs"
        await producer.send_and_wait(jobs, msgspec.json.encode(job), key=b"a", partition=1)
        worker = asyncio.create_task(run_roles(settings, {"worker"}, stop=stop))
        try:
            status, told = await _told(http, port, open_partitions=1)
            known = msgspec.json.encode(msgspec.structs.replace(job, version=1))
            await producer.send_and_wait(jobs, known, key=b"a", partition=1)
            status_after, told_after = await _told(http, port, open_partitions=2)
        finally:
            stop.set()
            await worker

    [problem] = told["problems"]
    assert status == 503
    assert problem == (
        "kafka: request partitions [1] are assigned but not open: the ledger holds a record (JobRecord) of layout 2, "
        "written by a later release of tams-bridge; this one reads layouts up to 1: run that release again"
    )
    assert (status_after, told_after["problems"]) == (200, [])


async def _told(http: httpx.AsyncClient, port: int, *, open_partitions: int) -> tuple[int, dict[str, list[str]]]:
    """Status and document of health, once so many partitions are open and nothing is being restored."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await http.get(f"http://127.0.0.1:{port}/health/ready")
            except httpx.TransportError:
                answer = None
            if answer is not None:
                document = answer.json()
                restoring = any("being restored" in problem for problem in document["problems"])
                partitions = document["worker"]["partitions"]
                if not restoring and (partitions["assigned"], partitions["open"]) == (2, open_partitions):
                    return answer.status_code, document
            await CLOCK.wait(asyncio.Event(), 0.05)


async def test_a_process_does_not_begin_on_a_registry_that_a_later_release_has_written(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """Whom an event is for, and by which secret it is signed, would be a guess."""
    settings = quick_settings(broker.bootstrap_servers, topic_prefix, "http://127.0.0.1:9")
    async with AsyncExitStack() as stack, producing(broker.bootstrap_servers) as producer:
        ground = await lay_ground(settings, stack, clock=CLOCK)
        await producer.send_and_wait(
            f"{topic_prefix}.endpoints", b'{"id":"ep_a","version":2}', key=b"ep_a", partition=0
        )

        with pytest.raises(CannotStart, match=r"the registry holds, under 'ep_a', a record \(Endpoint\) of layout 2"):
            await asyncio.wait_for(ground.registry_tail.run(), PATIENCE_S)

        assert not ground.registry_tail.caught_up.is_set()
