"""A worker dies between a POST and its outcome: the one moment at which nobody but TAMS can know what happened."""

from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from tests.crash.load import graph
from tests.crash.processes import Child, Line
from tests.crash.system import CREATE, QuickBroker, System, await_partitions, running_system

REQUESTS = [f"order-{number}" for number in range(1, 9)]

pytestmark = pytest.mark.apache


@pytest.mark.timeout(120)
def test_a_create_of_unknown_outcome_is_repeated_under_the_same_request_id(quick_broker: QuickBroker) -> None:
    """TAMS knows the `requestId` again: one job each, paid for once."""
    with running_system(quick_broker, Random(1)) as system:
        _die_between_post_and_outcome(system, system.worker())
        heir = system.worker()
        system.follower().until_ended(REQUESTS, seconds=60)
        assert heir.stop(seconds=15) == 0
        assert system.judged() == []
        assert set(_creates(system.tams.journal()).values()) == {2}
        assert _ends(system) == {"success": len(REQUESTS)}


@pytest.mark.timeout(120)
def test_a_create_of_unknown_outcome_is_never_repeated_where_that_could_be_paid_twice(
    quick_broker: QuickBroker,
) -> None:
    """With `submit_ambiguous=fail` the request ends as unknown; TAMS, which would make another job, is left alone."""
    with running_system(quick_broker, Random(1), repeat="new") as system:
        _die_between_post_and_outcome(system, system.worker(JOBS__SUBMIT_AMBIGUOUS="fail"))
        heir = system.worker(JOBS__SUBMIT_AMBIGUOUS="fail")
        system.follower().until_ended(REQUESTS, seconds=60)
        assert heir.stop(seconds=15) == 0
        assert system.judged() == []
        assert set(_creates(system.tams.journal()).values()) == {1}
        assert _ends(system) == {"unknown": len(REQUESTS)}


def _die_between_post_and_outcome(system: System, worker: Child) -> None:
    await_partitions(worker)
    system.tams.add_fault({"match": {"method": "POST"}, "fault": {"delay_s": 0.8}})
    for name in REQUESTS:
        system.load.request(name, graph(name))
    system.load.finish()
    system.tams.await_journal(lambda lines: len(_creates(lines)) == len(REQUESTS), seconds=20)
    worker.kill()
    system.tams.clear_faults()


def _creates(lines: Sequence[Line]) -> Counter[str]:
    return Counter(line["request_id"] for line in lines if line["route"] == CREATE)


def _ends(system: System) -> Counter[str]:
    return Counter(_last_kinds(system))


def _last_kinds(system: System) -> Iterator[str]:
    for story in system.follower().stories.values():
        yield max(story, key=lambda event: event.sequence).kind
