"""A new release is rolled out: one worker after the other is stopped and another started, and polling goes on."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from random import Random

import pytest

from bridge.settings import KafkaSettings
from tests.crash.load import graph
from tests.crash.processes import Child, Line
from tests.crash.system import PARTITIONS, QuickBroker, System, await_partitions, running_system

RATE = 40
JOBS = 30
LOOK_EVERY_S = 1.0
LONGEST_GAP_S = 5.0
"""The promise, for all calls together; of a single job one that would have been looked at a second later."""

DEFAULTS = KafkaSettings()
IN_EARNEST = {
    "KAFKA__SESSION_TIMEOUT_S": f"{DEFAULTS.session_timeout_s}",
    "KAFKA__HEARTBEAT_INTERVAL_S": f"{DEFAULTS.heartbeat_interval_s}",
    "KAFKA__REBALANCE_TIMEOUT_S": f"{DEFAULTS.rebalance_timeout_s}",
    "TAMS__TIMEOUT_S": "15",
    "TAMS__RATE": f"{RATE}",
    "POLL__INTERVAL_S": f"{LOOK_EVERY_S}",
}
"""How soon a partition changes hands is a matter of these. The rate leaves room to look at every job every second."""

pytestmark = pytest.mark.apache


@pytest.mark.timeout(180)
def test_polling_goes_on_while_all_workers_are_replaced_one_by_one(quick_broker: QuickBroker) -> None:
    """No gap is longer than 5 s over all calls, none is much longer for any job, and each job is paid for once."""
    with running_system(quick_broker, Random(7), rate=RATE, queue_s=0) as system:
        workers = [_worker(system), _worker(system)]
        _await_shares(workers)
        for number in range(JOBS):
            system.load.request(f"order-{number}", graph(f"order-{number}", run_s=3600))
        system.tams.await_journal(lambda lines: len(_looks(lines)) == JOBS, seconds=30)
        before = len(system.tams.journal())
        for former in list(workers):
            workers.remove(former)
            assert former.stop(seconds=15) == 0
            workers.append(_worker(system))
            _await_shares(workers)
        seen = len(system.tams.journal())
        system.tams.await_journal(lambda lines: len(_looks(lines[seen:])) == JOBS, seconds=30)
        looks = _looks(system.tams.journal()[before:])
        _end_all(system)
        assert [worker.stop(seconds=15) for worker in workers] == [0, 0]
        over_all = _longest_gap(time for times in looks.values() for time in times)
        by_job = max(_longest_gap(times) for times in looks.values())
        sys.stdout.write(f"longest gap: {over_all:.2f} s over all, {by_job:.2f} s of one job\n")
        assert over_all <= LONGEST_GAP_S
        assert by_job <= LONGEST_GAP_S + LOOK_EVERY_S
        assert [line for line in system.tams.journal() if line["status"] == 429] == []
        assert system.judged() == []


def _worker(system: System) -> Child:
    return system.worker(**IN_EARNEST)


def _await_shares(workers: Sequence[Child]) -> None:
    for worker in workers:
        await_partitions(worker, count=PARTITIONS // len(workers))


def _end_all(system: System) -> None:
    """The user gives all jobs up, so that the judge sees an end of each."""
    for name in list(system.load.accepted):
        system.load.cancel(name)
    system.load.finish()
    system.follower().until_ended(system.load.accepted, seconds=60)


def _looks(lines: Sequence[Line]) -> Mapping[str, Sequence[float]]:
    """When each job was looked at, in the emulator's real seconds."""
    looks: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["method"] == "GET":
            looks[line["job_id"]].append(line["real_at"])
    return looks


def _longest_gap(times: Iterable[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(sorted(times)))
