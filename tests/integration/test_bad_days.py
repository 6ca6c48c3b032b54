"""Days on which something is down, wrong, slow or killed: jobs wait, nothing is lost, nothing is doubled."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from bridge.adapters.brokers import apache_broker, apache_obstacle
from bridge.adapters.clock import SystemClock
from tests.integration.conftest import Stage, stage_on
from tests.integration.stack import KEY, WorkerHere, worker_here, worker_process


class _WorkerState(msgspec.Struct):
    jobs: dict[str, int]


def tracked(worker: WorkerHere) -> int:
    """How many jobs TAMS holds for it."""
    jobs = msgspec.convert(worker.process.state()["worker"], type=_WorkerState).jobs
    return jobs["tracked"]


async def until(stage: Stage, enough: int) -> None:
    """Wait until the emulator has got so many requests."""
    async with asyncio.timeout(20):
        while len(await stage.emulator.journal()) < enough:
            await SystemClock().wait(asyncio.Event(), 0.05)


async def test_wrong_credentials_are_one_line_and_red_health_and_work_goes_on_once_mended(
    stage: Stage, tmp_path: Path
) -> None:
    await stage.emulator.change(bearer_keys={"another-key": "app"})
    async with worker_process(stage.settings, tmp_path) as worker:
        for number in range(5):
            await stage.user.request(f"r{number}")
        await worker.until_health(lambda status, body: status == 503 and "credentials" in str(body["problems"]))
        assert [stage.user.types(f"r{number}") for number in range(5)] == [[], [], [], [], []]
        await until(stage, 3)

        await stage.emulator.change(bearer_keys={KEY: "app"})
        ends = await stage.user.ended(*(f"r{number}" for number in range(5)))
        await worker.until_health(lambda status, _: status == 200)

    assert {end.type for end in ends} == {"tams.job.success"}
    (complaint,) = worker.complaints()
    assert "tams refuses our credentials" in complaint["event"]
    stage.user.assert_whole()


async def test_while_tams_is_down_jobs_wait_and_no_event_is_doubled_or_lost(stage: Stage) -> None:
    async with worker_here(stage.settings) as worker:
        await stage.user.request("before", run_s=4)
        await stage.user.until(lambda: "submitted" in stage.user.types("before"))
        await stage.emulator.stop()
        for number in range(5):
            await stage.user.request(f"r{number}")
        await stage.user.until(lambda: any("not reachable" in problem for problem in worker.process.problems()))

        await stage.emulator.start()
        await stage.user.ended(*(f"r{number}" for number in range(5)))

    for number in range(5):
        assert stage.user.types(f"r{number}").count("accepted") == 1
        assert stage.user.types(f"r{number}").count("submitted") == 1
    stage.user.assert_whole()


async def test_sigterm_ends_the_worker_in_time_with_everything_in_the_ledger(stage: Stage, tmp_path: Path) -> None:
    """Some jobs run, one POST hangs: the next worker goes on with all of them."""
    async with worker_process(stage.settings, tmp_path) as worker:
        for number in range(10):
            await stage.user.request(f"r{number}", run_s=30)
        await stage.user.until(lambda: all("submitted" in stage.user.types(f"r{number}") for number in range(10)))
        await stage.user.request("slow", http={"create": [{"delay_s": 40}]}, group="slow")
        await until(stage, 1)
        began = SystemClock().monotonic()
        assert await worker.terminate() == 0
        assert SystemClock().monotonic() - began < 10
    assert worker.complaints() == []

    async with worker_here(stage.settings):
        await stage.user.ended("slow", *(f"r{number}" for number in range(10)))

    creates = {entry["request_id"] for entry in await stage.emulator.journal("POST")}
    assert len(creates) == 11
    stage.user.assert_whole()


async def test_two_workers_share_the_partitions_and_one_takes_over_from_the_other(stage: Stage, tmp_path: Path) -> None:
    async with worker_process(stage.settings, tmp_path, name="first") as first:
        await first.until_health(lambda _, body: body["worker"]["partitions"]["open"] == 2)
        for number in range(8):
            await stage.user.request(f"r{number}", run_s=60)
        async with worker_process(stage.settings, tmp_path, name="second") as second:
            await first.until_health(lambda _, body: body["worker"]["partitions"]["open"] == 1)
            for number in range(8, 12):
                await stage.user.request(f"r{number}")
            await stage.user.ended("r8", "r9", "r10", "r11")

            assert await first.terminate() == 0
            await second.until_health(lambda _, body: body["worker"]["partitions"]["open"] == 2)
            await stage.user.ended(*(f"r{number}" for number in range(8)))
            assert await second.terminate() == 0

    creates = [entry for entry in await stage.emulator.journal("POST") if entry["status"] == 200]
    assert len({entry["request_id"] for entry in creates}) == len(creates) == 12
    stage.user.assert_whole()


async def test_requests_stay_in_kafka_while_many_wait_and_all_are_done_in_the_end(stage: Stage) -> None:
    """TAMS takes one job at a time: the line is short, the rest stays in Kafka."""
    settings = stage.settings.model_copy(
        update={"worker": stage.settings.worker.model_copy(update={"max_waiting": 5, "max_in_flight": 4})}
    )
    await stage.emulator.change(queue_s=0, run_s=0.5)
    names = [f"r{number}" for number in range(60)]
    for name in names:
        await stage.user.request(name, images=0)
    most = 0
    async with worker_here(settings) as worker:

        def done() -> bool:
            nonlocal most
            most = max(most, tracked(worker))
            return all(stage.user.end(name) for name in names)

        await stage.user.until(done)

    assert most <= 4
    stage.user.assert_whole()


async def test_no_secret_is_found_in_logs_or_topics(stage: Stage, tmp_path: Path) -> None:
    """On good calls and bad ones, at the most talkative level."""
    async with worker_process(stage.settings, tmp_path) as worker:
        await stage.user.request("fine")
        await stage.user.request("cut", group="cut", http={"create": [{"cut": "after"}, {"status": 500}]})
        await stage.user.request("rejected", batch_size=1, unknown_switch=True)
        place = await stage.user.publish(b"{")
        await stage.user.letter(place)
        await stage.user.ended("fine", "cut", "rejected")
        await stage.emulator.stop()
        await stage.user.request("down")
        await worker.until_health(lambda _, body: "not reachable" in str(body["problems"]))
        _, health = await worker.health()
        await worker.terminate()

    topics = b"".join(
        b"".join([record.key or b"", record.value or b"", *(value or b"" for _, value in record.headers)])
        for record in stage.user.records
    )
    assert KEY not in worker.log.read_text() + str(health)
    assert KEY.encode() not in topics


@pytest.mark.apache
async def test_a_worker_outlives_a_restart_of_the_broker(topic_prefix: str, tmp_path: Path) -> None:
    obstacle = await apache_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    async with (
        apache_broker() as process,
        stage_on(process.bootstrap_servers, topic_prefix) as stage,
        worker_process(stage.settings, tmp_path) as worker,
    ):
        await stage.user.request("before", run_s=60)
        await stage.user.until(lambda: "submitted" in stage.user.types("before"))
        await process.stop()
        await worker.until_health(lambda status, _: status == 503)

        await process.start()
        await stage.user.request("after")
        await stage.user.ended("before", "after", seconds=60)
        await worker.until_health(lambda status, _: status == 200)

        assert await worker.terminate() == 0
        stage.user.assert_whole()
