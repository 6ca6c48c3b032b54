import os
import secrets
import sys
from random import Random

import pytest

from tests.crash.processes import Child, opened
from tests.crash.system import QuickBroker, await_partitions, running_system

SEED = int(os.environ.get("BRIDGE_CRASH_SEED") or secrets.randbits(16))
PER_SECOND = 60

pytestmark = pytest.mark.apache


@pytest.mark.timeout(0)  # as many kills as are wanted; every wait in here has a time-out of its own
def test_nothing_is_lost_doubled_or_paid_twice_however_often_a_worker_is_killed(quick_broker: QuickBroker) -> None:
    """A worker is killed at random moments under load: at work, while it restores, while it starts."""
    sys.stdout.write(f"{quick_broker.runs} kills, BRIDGE_CRASH_SEED={SEED}\n")
    chance = Random(SEED)
    with running_system(quick_broker, Random(SEED)) as system:
        first = system.worker()
        await_partitions(first)
        system.tams.add_fault({"match": {"method": "POST"}, "fault": {"status": 429}, "probability": 0.003})
        system.load.start(PER_SECOND)
        _live_and_die(first, chance)
        for _ in range(quick_broker.runs - 1):
            _live_and_die(system.worker(), chance)
        last = system.worker()
        system.load.finish()
        system.tams.clear_faults()
        system.follower().until_ended(system.load.accepted, seconds=120)
        assert last.stop(seconds=15) == 0
        assert system.judged() == []


def _live_and_die(worker: Child, chance: Random) -> None:
    """Kill it at a moment that a throw of the dice decides on."""
    match chance.choice(["at work", "at work", "at work", "while restoring", "while starting"]):
        case "at work":
            await_partitions(worker)
            worker.live_for(chance.uniform(0, 1.5))
        case "while restoring":
            worker.await_lines(lambda lines: bool(opened(lines)), seconds=30, what="open partition")
        case _:
            worker.live_for(chance.uniform(0.5, 2.5))
    worker.kill()
