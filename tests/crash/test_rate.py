"""Several workers share the rate of one TAMS account: never beyond it, and little of it unused."""

from collections.abc import Sequence
from random import Random

import pytest

from tests.crash.load import graph
from tests.crash.processes import Child
from tests.crash.system import QuickBroker, System, await_partitions, running_system

RATE = 10
JOBS = 150
STEADY_S = 5.0
WANTED = 0.9
TRIES = 3

pytestmark = pytest.mark.apache


@pytest.mark.timeout(180)
def test_three_workers_never_exceed_the_rate_and_use_nine_tenths_of_it(quick_broker: QuickBroker) -> None:
    """One alone, then three by two rebalances, then two after a SIGKILL; the emulator counts as strictly as can be."""
    with running_system(quick_broker, Random(5), rate=RATE, run_s=600, queue_s=0) as system:
        workers = [_worker(system)]
        await_partitions(workers[0], count=3)
        _give_work(system)
        workers[0].live_for(3.0)
        alone = _used(system, workers)

        workers += [_worker(system), _worker(system)]
        for worker in workers[1:]:
            await_partitions(worker, count=1)
        workers[0].live_for(3.0)
        three = _used(system, workers)

        killed = workers.pop()
        killed.kill()
        workers[0].live_for(
            quick_broker.session_s + 8.0
        )  # its slots are taken after 5 s, its partitions after a session
        two = _used(system, workers)

        journal = system.tams.journal()
        assert _peak([line["emulated_at"] for line in journal]) <= RATE
        assert [line for line in journal if line["status"] == 429] == []
        assert min(alone, three, two) >= WANTED, f"used alone {alone:.2f}, by three {three:.2f}, by two {two:.2f}"
        assert [worker.stop(seconds=15) for worker in workers] == [0, 0]


def _worker(system: System) -> Child:
    return system.worker(TAMS__RATE=f"{RATE}", TOPICS__PARTITIONS="3", POLL__INTERVAL_S="0.5")


def _give_work(system: System) -> None:
    """Jobs enough that whoever owns any partition always has somebody to look at; none of them ends."""
    for number in range(JOBS):
        system.load.request(f"order-{number}", graph(f"order-{number}"))


def _used(system: System, workers: Sequence[Child]) -> float:
    """The part of the rate that is used while nothing happens; a machine that stalls gets up to three tries."""
    used = [0.0]
    while max(used) < WANTED and len(used) <= TRIES:
        before = len(system.tams.journal())
        workers[0].live_for(STEADY_S)
        used.append((len(system.tams.journal()) - before) / STEADY_S / RATE)
    return max(used)


def _peak(times: Sequence[float]) -> int:
    """The most calls that any second, wherever it begins, holds."""
    times = sorted(times)
    return max(sum(1 for later in times[at : at + 2 * RATE] if later < time + 1.0) for at, time in enumerate(times))
