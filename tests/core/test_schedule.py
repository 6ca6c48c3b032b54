from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.schedule import BackOff

BACK_OFF = BackOff(initial=timedelta(seconds=1), limit=timedelta(seconds=60))


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60)])
def test_pause_doubles_with_every_failure_up_to_the_limit(failures: int, seconds: int) -> None:
    """The longest pause after n failures is twice that after n - 1, and never beyond the limit."""
    assert BACK_OFF.pause(failures, 1.0) == timedelta(seconds=seconds)


def test_chance_takes_off_up_to_half() -> None:
    """Jobs that failed together do not come back together."""
    assert BACK_OFF.pause(3, 0.0) == timedelta(seconds=2)


@pytest.mark.parametrize("failures", [0, -3])
def test_no_failure_counts_as_the_first(failures: int) -> None:
    """A caller that has not counted yet gets the shortest pause, not an error."""
    assert BACK_OFF.pause(failures, 1.0) == timedelta(seconds=1)


@given(failures=st.integers(1, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_pause_stays_between_half_the_first_pause_and_the_limit(failures: int, chance: float) -> None:
    """Neither a hot loop nor a job that is forgotten."""
    assert timedelta(seconds=0.5) <= BACK_OFF.pause(failures, chance) <= timedelta(seconds=60)


def test_long_pauses_double_without_end_too() -> None:
    """Whatever the settings say, many failures in a row are no error."""
    day = timedelta(days=1)

    assert BackOff(initial=day, limit=3 * day).pause(40, 1.0) == 3 * day
