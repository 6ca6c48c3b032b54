"""What was learned of run times, kept on a real broker and found again by the next process."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.adapters.kafka.run_times import KafkaRunTimes
from bridge.core.run_times import RunTimes, kind_of
from bridge.settings import Settings
from tests.adapters.topics import make_topic, producing, settings_for
from tests.brokers import RunningBroker

PATIENCE_S = 20
KIND = kind_of(["KSampler", "SaveImage"])


@pytest.fixture
async def settings(broker: RunningBroker) -> Settings:
    settings = settings_for(broker, f"t{secrets.token_hex(6)}")
    await make_topic(broker.bootstrap_servers, topic_of(settings), 1)
    return settings


def topic_of(settings: Settings) -> str:
    return f"{settings.topics.prefix}.run-times"


@asynccontextmanager
async def keeping(settings: Settings, **learned: RunTimes) -> AsyncIterator[KafkaRunTimes]:
    """Keep these, beginning with what is there; at the end, write once more."""
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(KafkaPublisher(settings))
        kept = KafkaRunTimes(settings, topic_of(settings), learned, publisher=publisher, clock=SystemClock())
        following, writing = asyncio.create_task(kept.tail.run()), asyncio.create_task(kept.run())
        async with asyncio.timeout(PATIENCE_S):
            await kept.tail.caught_up.wait()
        yield kept
        kept.stop()
        await writing
        kept.tail.stop()
        await following


def taught(seconds: float, times: int = 30) -> RunTimes:
    """What is known after so many jobs that took about so long."""
    run_times = RunTimes()
    for _ in range(times):
        run_times.learn(KIND, seconds * 0.95, seconds * 1.05)
    return run_times


async def test_the_next_process_knows_what_the_former_had_learned(settings: Settings) -> None:
    async with keeping(settings, run=taught(60.0)):
        pass
    successor = RunTimes()

    async with keeping(settings, run=successor):
        assert successor.evidence(KIND) > 20
        expected = successor.of(KIND)
        assert (expected.done_by(50.0) < 0.1, expected.done_by(75.0) > 0.9) == (True, True)


async def test_runs_and_waits_are_kept_apart(settings: Settings) -> None:
    async with keeping(settings, run=taught(60.0), wait=RunTimes()):
        pass
    run, wait = RunTimes(), RunTimes()

    async with keeping(settings, run=run, wait=wait):
        assert run.evidence(KIND) > 20
        assert wait.evidence(KIND) == 0


async def test_records_that_mean_nothing_are_passed_over(settings: Settings) -> None:
    """A person, or a later version, may have written them."""
    odd: list[tuple[bytes | None, bytes | None]] = [
        (None, b"{}"),
        (b"run:k", None),
        (b"\xff:k", b"{}"),
        (b"walk:k", b"{}"),
        (b"run:k", b"\xff"),
        (b"run:k", b"[]"),
        (b"run:k", b'{"x": ' + b"[" * 100_000),
        (b"run:k", b'{"weights": "many"}'),
        (b"run:k", b'{"version": 99, "weights": {"10": 50.0}}'),
    ]
    async with producing(settings.kafka.bootstrap_servers) as producer:
        for key, value in odd:
            await producer.send_and_wait(topic_of(settings), value, key=key)
    async with keeping(settings, run=taught(60.0)):
        pass
    successor = RunTimes()

    async with keeping(settings, run=successor):
        assert (successor.evidence("k"), successor.evidence(KIND) > 20) == (0, True)
