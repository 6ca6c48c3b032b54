from collections.abc import Hashable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.polling import FairTurns
from tests.core.examples import view

NEVER = float("inf")


def turns(*keys: str, now: float = 0.0) -> FairTurns:
    """Jobs that were added in this order at `now`; each may be looked at once in ten seconds."""
    fair = FairTurns(interval=10.0)
    for key in keys:
        fair.add(key, now=now)
    return fair


def test_nobody_to_look_at_is_never_worth_a_call() -> None:
    """An idle worker makes no calls."""
    assert turns().available_at() == NEVER


def test_first_look_comes_one_interval_after_the_job() -> None:
    """TAMS has just answered the create: there is nothing new to see."""
    assert turns("a", now=5.0).available_at() == 15.0


def test_job_added_twice_keeps_its_place() -> None:
    """Saying again that a job is to be looked at does not put it off."""
    fair = turns("a", now=0.0)

    fair.add("a", now=9.0)

    assert (len(fair), fair.available_at()) == (1, 10.0)


def test_longest_waiting_job_comes_first() -> None:
    """Turns are fair."""
    fair = turns("a", "b", "c")

    order = [fair.take() for _ in range(3)]

    assert order == ["a", "b", "c"]


def test_job_under_look_is_not_offered_again() -> None:
    """Two looks at one job at once would tell nothing more."""
    fair = turns("a")

    fair.take()

    assert fair.available_at() == NEVER


def test_job_comes_again_one_interval_after_its_look() -> None:
    """Whatever was seen."""
    fair = turns("a")

    fair.looked(fair.take(), view("RUNNING"), now=12.0)

    assert fair.available_at() == 22.0


def test_discarded_job_is_not_offered() -> None:
    """An ended job costs no more calls."""
    fair = turns("a", "b")

    fair.discard("a")

    assert (len(fair), fair.available_at(), fair.take()) == (1, 10.0, "b")


def test_discarding_an_unknown_job_changes_nothing() -> None:
    """A job may end twice, in the eyes of its owner."""
    fair = turns("a")

    fair.discard("z")

    assert len(fair) == 1


def test_job_discarded_under_look_does_not_come_back() -> None:
    """The look that was under way does not bring an ended job back."""
    fair = turns("a")
    key = fair.take()
    fair.discard(key)

    fair.looked(key, None, now=12.0)

    assert (len(fair), fair.available_at()) == (0, NEVER)


def test_hurried_job_comes_at_once() -> None:
    """After a cancel the end is near."""
    fair = turns("a", "b")

    fair.hurry("b", now=1.0)

    assert (fair.available_at(), fair.take()) == (1.0, "b")


def test_hurry_does_not_put_off_a_job_that_is_overdue() -> None:
    """A job that waits since long keeps its place before others."""
    fair = turns("a")

    fair.hurry("a", now=50.0)

    assert fair.available_at() == 10.0


def test_hurry_for_an_unknown_job_changes_nothing() -> None:
    """The job may have ended in the meantime."""
    fair = turns()

    fair.hurry("a", now=1.0)

    assert fair.available_at() == NEVER


def test_job_hurried_under_look_is_looked_at_again_right_after() -> None:
    """The look under way may have been answered before what is known to have happened."""
    fair = turns("a")
    key = fair.take()

    fair.hurry(key, now=11.0)
    offered_during_look = fair.available_at()
    fair.looked(key, None, now=12.0)

    assert (offered_during_look, fair.available_at()) == (NEVER, 12.0)


def test_hurry_is_forgotten_with_its_job() -> None:
    """A job that comes anew under the same key is not hurried for what happened to the one before."""
    fair = turns("a")
    key = fair.take()
    fair.hurry(key, now=11.0)

    fair.discard(key)
    fair.add(key, now=20.0)
    fair.looked(key, None, now=25.0)

    assert fair.available_at() == 35.0


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "look", "wait"]), st.sampled_from("abcd"), st.floats(0.1, 20)),
    max_size=60,
)


@given(STEPS)
def test_nobody_is_looked_at_more_often_than_the_interval_and_nobody_is_forgotten(
    steps: list[tuple[str, str, float]],
) -> None:
    """At any mix of jobs that come, go and wait, the ceiling holds and everybody's turn comes."""
    fair, now, tracked = FairTurns(interval=10.0), 0.0, set[Hashable]()
    looks: dict[Hashable, list[float]] = {}
    for step, key, seconds in steps:
        now += seconds
        if step == "add":
            fair.add(key, now=now)
            tracked.add(key)
        elif step == "discard":
            fair.discard(key)
            tracked.discard(key)
        elif step == "look" and fair.available_at() <= now:
            taken = fair.take()
            looks.setdefault(taken, []).append(now)
            fair.looked(taken, None, now=now)

    assert all(later - earlier >= 10.0 for times in looks.values() for earlier, later in pairwise(times))
    assert {fair.take() for _ in range(len(fair)) if fair.available_at() < NEVER} == tracked
