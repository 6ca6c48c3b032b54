import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.queue_speed import QueueSpeed

QUARTERS = (0.25, 0.5, 0.75)


def moving(ranks_per_s: float, *, until: float = 300.0) -> QueueSpeed:
    """A queue watched at this speed, every ten seconds."""
    speed = QueueSpeed()
    for second in range(10, int(until) + 1, 10):
        speed.saw(round(10 * ranks_per_s), 10.0, float(second))
    return speed


def test_speed_begins_from_a_guess() -> None:
    """Nobody is to wait for ever before the first rank has moved."""
    assert QueueSpeed().ranks_per_s == 0.25


@pytest.mark.parametrize("ranks_per_s", [0.1, 1.0, 20.0])
def test_speed_is_learned_from_ranks(ranks_per_s: float) -> None:
    assert moving(ranks_per_s).ranks_per_s == pytest.approx(ranks_per_s, rel=0.1)


def test_looks_at_many_jobs_tell_of_the_same_speed() -> None:
    """Each of them stands in the same queue: what they tell is averaged, not added up."""
    speed = QueueSpeed()
    for second in range(10, 300, 10):
        for _ in range(5):
            speed.saw(20, 10.0, float(second))

    assert speed.ranks_per_s == pytest.approx(2.0, rel=0.1)


def test_what_was_seen_minutes_ago_is_forgotten() -> None:
    """TAMS may have got slower."""
    speed = moving(20.0, until=300.0)

    for second in range(310, 610, 10):
        speed.saw(10, 10.0, float(second))

    assert speed.ranks_per_s == pytest.approx(1.0, rel=0.2)


def test_queue_that_stands_still_is_taken_to_be_slow_and_not_to_stand_for_ever() -> None:
    assert 0.0 < moving(0.0).ranks_per_s < 0.02


def test_job_that_was_overtaken_does_not_let_the_queue_go_backwards() -> None:
    speed = QueueSpeed()

    speed.saw(-1_000, 10.0, 10.0)

    assert 0.0 < speed.ranks_per_s < 0.25


def test_job_waits_for_those_before_it_and_itself() -> None:
    """At two ranks a second, the hundredth place takes 50 s, more or less."""
    low, middle, high = moving(2.0).waits(99, QUARTERS)

    assert 35.0 < low < middle < high < 70.0
    assert middle == pytest.approx(50.0, rel=0.1)


def test_many_places_are_more_certain_than_few() -> None:
    """They go one by one, and luck evens out: half of all cases lie within a factor of 4, and of 1.35."""
    speed = moving(2.0)
    few_low, _, few_high = speed.waits(0, QUARTERS)
    many_low, _, many_high = speed.waits(99, QUARTERS)

    assert few_high / few_low == pytest.approx(3.96, rel=0.01)
    assert many_high / many_low == pytest.approx(1.35, rel=0.01)


@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=8),
    st.integers(0, 10**9),
)
def test_no_ranks_or_times_break_anything(seen: list[tuple[int, float, float]], rank: int) -> None:
    """TAMS may say anything, and clocks step."""
    speed = QueueSpeed()
    for ranks, seconds, now in seen:
        speed.saw(ranks, seconds, now)

    low, middle, high = speed.waits(rank, QUARTERS)

    assert 0.0 < low <= middle <= high < float("inf")
