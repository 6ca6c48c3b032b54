from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.breaker import Breaker
from bridge.core.schedule import BackOff

NEVER = float("inf")
AT_ONCE = float("-inf")


def breaker(threshold: int = 3) -> Breaker:
    return Breaker(threshold=threshold, back_off=BackOff(initial=timedelta(seconds=2), limit=timedelta(seconds=8)))


def opened(at: float = 100.0) -> Breaker:
    broken = breaker()
    broken.failed(now=at, chance=1.0, at_once=True)
    return broken


def test_calls_pass_while_failures_stay_below_the_threshold() -> None:
    """Two bad answers are no outage."""
    closed = breaker(threshold=3)

    closed.failed(now=0, chance=1.0)
    closed.failed(now=0, chance=1.0)

    assert closed.available_at() == AT_ONCE


def test_opens_at_the_threshold_for_one_pause() -> None:
    """The third failure in a row stops the calls."""
    broken = breaker(threshold=3)

    for _ in range(3):
        broken.failed(now=100.0, chance=1.0)

    assert (broken.is_open, broken.available_at()) == (True, 102.0)


def test_success_between_failures_starts_the_count_again() -> None:
    """Only failures in a row count."""
    closed = breaker(threshold=2)

    closed.failed(now=0, chance=1.0)
    closed.succeeded()
    closed.failed(now=0, chance=1.0)

    assert not closed.is_open


def test_opens_at_once_when_told_so() -> None:
    """Bad credentials need no second try."""
    assert opened().is_open


def test_calls_that_fail_after_it_opened_do_not_lengthen_the_pause() -> None:
    """Sixty calls under way when TAMS went down are one outage, not sixty."""
    broken = opened(at=100.0)

    for _ in range(60):
        broken.failed(now=101.0, chance=1.0)

    assert broken.available_at() == 102.0


def test_only_one_probe_is_under_way_at_a_time() -> None:
    """An upstream that comes back is not greeted with everything at once."""
    broken = opened()

    broken.begin()

    assert broken.available_at() == NEVER


def test_failed_probe_doubles_the_pause() -> None:
    """The longer it is down, the less it is asked."""
    broken = opened(at=100.0)

    broken.begin()
    broken.failed(now=110.0, chance=1.0)

    assert broken.available_at() == 114.0


def test_probe_that_told_nothing_makes_way_for_another() -> None:
    """A probe that was never sent does not keep the breaker open for good."""
    broken = opened(at=100.0)

    broken.begin()
    broken.abandoned()

    assert broken.available_at() == 102.0


def test_successful_probe_closes_it() -> None:
    """One sensible answer is enough."""
    mended = opened()

    mended.begin()
    mended.succeeded()

    assert (mended.is_open, mended.available_at()) == (False, AT_ONCE)


def test_next_outage_begins_with_the_shortest_pause() -> None:
    """What was learned of the last outage is forgotten when it ends."""
    mended = opened(at=100.0)
    mended.begin()
    mended.failed(now=110.0, chance=1.0)
    mended.succeeded()

    mended.failed(now=200.0, chance=1.0, at_once=True)

    assert mended.available_at() == 202.0


@given(st.lists(st.sampled_from(["begin", "abandoned", "succeeded", "failed"]), max_size=40))
def test_never_shut_for_good(happenings: list[str]) -> None:
    """Whatever happened, once no call is under way there is a time at which the next one may be made."""
    tested = breaker()
    for now, happening in enumerate(happenings):
        match happening:
            case "begin":
                tested.begin()
            case "abandoned":
                tested.abandoned()
            case "succeeded":
                tested.succeeded()
            case _:
                tested.failed(now=float(now), chance=1.0)

    tested.abandoned()

    assert tested.available_at() <= len(happenings) + 8
