from collections.abc import Sequence
from random import Random

import pytest

from tests.crash.processes import Child, Line, opened
from tests.crash.system import PARTITIONS, QuickBroker, System, await_partitions, running_system

PER_SECOND = 30
ROUNDS = 3

pytestmark = pytest.mark.apache


@pytest.mark.timeout(180)
def test_a_worker_that_slept_past_its_session_is_fenced_and_writes_nothing(quick_broker: QuickBroker) -> None:
    """One of two workers is stopped in mid-work; the other takes over; the first wakes up, and joins in again."""
    chance = Random(3)
    with running_system(quick_broker, chance) as system:
        workers = [system.worker(), system.worker()]
        for worker in workers:
            await_partitions(worker, count=PARTITIONS // 2)
        system.load.start(PER_SECOND)
        for number in range(ROUNDS):
            sleeper, other = workers[number % 2], workers[1 - number % 2]
            sleeper.live_for(chance.uniform(0.5, 1.5))
            _sleep_through_a_take_over(system, sleeper, other)
        system.load.finish()
        system.follower().until_ended(system.load.accepted, seconds=60)
        assert [worker.stop(seconds=15) for worker in workers] == [0, 0]
        assert system.judged() == []


def _sleep_through_a_take_over(system: System, sleeper: Child, other: Child) -> None:
    """Only what is opened after the pause tells of a take-over: a rebalance of the round before may still go on."""
    for worker in (sleeper, other):
        await_partitions(worker, count=PARTITIONS // 2)
    sleeper.pause()
    paused_at = len(other.lines)
    other.await_lines(lambda lines: len(opened(lines[paused_at:])) == PARTITIONS, seconds=40, what="take-over")
    system.follower().until_ended(list(system.load.accepted), seconds=60)
    slept_at = len(sleeper.lines)
    sleeper.go_on()
    sleeper.await_lines(lambda lines: _was_fenced(lines[slept_at:]), seconds=30, what="fencing")
    sleeper.await_lines(
        lambda lines: len(opened(lines)) == PARTITIONS // 2 and _has_ended_jobs(lines[slept_at:]),
        seconds=60,
        what="work in its half of the partitions",
    )


def _was_fenced(lines: Sequence[Line]) -> bool:
    return any(line.get("event") == "partition lost" for line in lines)


def _has_ended_jobs(lines: Sequence[Line]) -> bool:
    """Whether a job was ended in a partition that was opened again."""
    events = [line.get("event") for line in lines]
    return "partition opened" in events and "job ended" in events[events.index("partition opened") :]
