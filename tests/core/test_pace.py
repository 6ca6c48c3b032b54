from hypothesis import given
from hypothesis import strategies as st

from bridge.core.pace import Pace


def throttled(*times: float) -> Pace:
    pace = Pace()
    for now in times:
        pace.throttled(now)
    return pace


def test_the_whole_rate_is_used_until_tams_complains() -> None:
    assert Pace().factor(5.0) == 1.0


def test_a_complaint_halves_the_pace_at_once() -> None:
    assert throttled(100.0).factor(100.0) == 0.5


def test_most_of_the_pace_is_back_after_ten_seconds_and_all_of_it_after_a_minute_more() -> None:
    """A single 429 may have had another cause."""
    pace = throttled(100.0)

    assert pace.factor(105.0) == 0.7
    assert pace.factor(110.0) == 0.9
    assert pace.factor(140.0) < 1.0
    assert pace.factor(171.0) == 1.0


def test_complaints_about_calls_made_before_slowing_down_change_nothing() -> None:
    """Several calls are under way at once, and all of them may be refused for the same burst."""
    assert throttled(100.0, 100.1, 101.9).factor(101.9) == throttled(100.0).factor(101.9)


def test_a_lower_rate_of_tams_is_found_and_mostly_used() -> None:
    """TAMS admits 0.6 of what the settings say: few complaints, and not much left unused."""
    pace, used, complaints = Pace(), 0.0, 0
    for second in range(2000):
        factor = pace.factor(float(second))
        if factor > 0.6:
            complaints += 1
            pace.throttled(float(second))
        used += min(factor, 0.6)

    assert used / 2000 / 0.6 > 0.85
    assert complaints < 40


@given(times=st.lists(st.floats(0, 1e6), max_size=40), later=st.floats(0, 1e6))
def test_the_pace_stays_between_nothing_and_the_whole_rate(times: list[float], later: float) -> None:
    """Whatever TAMS says: calls never stop altogether, and never exceed what was promised."""
    pace = throttled(*sorted(times))

    assert 0 < pace.factor(max([*times, 0.0]) + later) <= 1


@given(times=st.lists(st.floats(0, 1e6), max_size=40), steps=st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_the_pace_only_grows_between_complaints(times: list[float], steps: list[float]) -> None:
    pace, now, before = throttled(*sorted(times)), max([*times, 0.0]), 0.0
    for step in steps:
        now += step
        assert pace.factor(now) >= before - 1e-9
        before = pace.factor(now)
