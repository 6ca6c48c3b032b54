from itertools import pairwise
from math import exp, log, nextafter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.durations import BINS, EDGES, LOG_CENTRES, LOG_STEP, Durations, Hint, bin_of

LAST = EDGES[-1]
EVER = float("inf")
NO_NUMBER = float("nan")


def peaks(*found: tuple[int, float], flat: float = 0.0) -> Durations:
    """A distribution with these weights in these bins, and as much in each."""
    weights = [flat] * BINS
    for at, weight in found:
        weights[at] += weight
    return Durations(weights)


def log_normal(median: float, sigma: float, *, samples: int = 4_000, seed: int = 1) -> Durations:
    """What a log-normal law looks like in bins."""
    chance = Random(seed)
    return peaks(*((bin_of(chance.lognormvariate(log(median), sigma)), 1.0) for _ in range(samples)))


TEN_TO_TWENTY = Durations([max(min(high, 20.0) - max(low, 10.0), 0.0) for low, high in pairwise(EDGES)])
"""Nearly evenly spread from 10 to 20 s: the bins at both ends reach a little farther."""

LAWS = st.builds(
    lambda found, flat: peaks(*found, flat=flat),
    st.lists(st.tuples(st.integers(0, BINS - 1), st.floats(1e-6, 1.0)), min_size=1, max_size=4),
    st.sampled_from([0.0, 1e-9, 1e-4, 0.01]),
)
AGES = st.floats(0.0, 60_000.0) | st.floats(0.0, 100.0) | st.sampled_from(EDGES)
PRICES = st.floats(1e-4, 1e5)


def about(seconds: float) -> object:
    """Nearly as long: what rounding may do to ages of hours."""
    return pytest.approx(seconds, rel=1e-6, abs=1e-6)


def test_bins_follow_on_each_other_and_grow_with_the_time() -> None:
    """An eighth of the age, from a twentieth of a second to half a day."""
    assert (EDGES[0], EDGES[1], len(EDGES)) == (0.0, 0.05, BINS + 1)
    assert all(high / low == pytest.approx(1.12) for low, high in pairwise(EDGES[1:]))
    assert 12 * 3600 < LAST < 14 * 3600


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0.0, 0), (0.049, 0), (0.05, 1), (LAST, BINS - 1), (1e9, BINS - 1), (EVER, BINS - 1), (-1.0, 0)],
)
def test_every_duration_has_a_bin(seconds: float, number: int) -> None:
    assert bin_of(seconds) == number


@given(LAWS, AGES, AGES)
def test_probability_to_be_done_lies_between_none_and_all_and_never_falls(
    law: Durations, one: float, two: float
) -> None:
    early, late = law.done_by(min(one, two)), law.done_by(max(one, two))

    assert 0.0 <= early <= late + 1e-12 <= 1.0 + 1e-12


@given(LAWS)
def test_nothing_is_done_at_once_and_everything_by_the_last_edge(law: Durations) -> None:
    assert (law.done_by(0.0), law.done_by(LAST)) == (about(0.0), 1.0)


@given(LAWS, AGES, AGES)
def test_silence_is_the_area_under_the_probability_to_be_done(law: Durations, one: float, two: float) -> None:
    """Over any time it grows by at least what was done before it, and by at most what is done after it."""
    low, high = sorted((one, two))

    grown = law.silence(high) - law.silence(low)

    assert law.silence(0.0) == 0.0
    assert law.done_by(low) * (high - low) - 1e-6 <= grown <= law.done_by(high) * (high - low) + 1e-6


@given(LAWS, AGES, st.floats(0.001, 0.999))
def test_quantiles_are_the_ages_by_which_that_part_of_the_rest_is_done(
    law: Durations, after: float, part: float
) -> None:
    (age,) = law.quantiles(after, [part])

    assert age >= after
    if law.done_by(after) < 1.0 - 1e-9:
        expected = law.done_by(after) + part * (1.0 - law.done_by(after))
        assert law.done_by(age) == pytest.approx(expected, abs=1e-9)


def test_what_has_outlasted_all_is_expected_to_end_within_an_eighth_of_its_age() -> None:
    law = peaks((50, 1.0))

    assert law.quantiles(1_000.0, [0.5, 1.0]) == [1_060.0, 1_120.0]


@given(LAWS, AGES, AGES)
def test_mean_between_two_ages_lies_between_them(law: Durations, one: float, two: float) -> None:
    """And is what is left of the time when the silence since the end is taken off."""
    low, high = sorted((one, two))

    mean = law.mean_between(low, high)

    assert low <= mean <= high
    ended = law.done_by(high) - law.done_by(low)
    if ended > 1e-3:
        silence = law.silence(high) - law.silence(low) - law.done_by(low) * (high - low)
        assert mean == about(high - silence / ended)


def test_mean_between_ages_at_which_nothing_ends_is_their_middle() -> None:
    assert peaks((50, 1.0)).mean_between(1_000.0, 3_000.0) == 2_000.0


@given(LAWS, AGES, AGES)
def test_bins_between_two_ages_hold_what_ends_between_them(law: Durations, one: float, two: float) -> None:
    low, high = sorted((one, two))

    first, parts = law.between(low, high)

    assert (first, first + len(parts) - 1) == (bin_of(low), bin_of(min(high, LAST)))
    assert min(parts) >= 0.0
    assert sum(parts) == pytest.approx(law.done_by(high) - law.done_by(low), abs=1e-9)


def test_delay_to_be_expected_of_an_even_law() -> None:
    """At 15 s half of the jobs have ended, since 2.5 s on average; one seen at 15 s is half as old as all at 20."""
    assert TEN_TO_TWENTY.delay(0.0, 15.0) == pytest.approx(1.25, rel=0.05)
    assert TEN_TO_TWENTY.delay(15.0, 20.0) == pytest.approx(2.5, rel=0.05)
    assert TEN_TO_TWENTY.delay(15.0, 30.0) == pytest.approx(12.5, rel=0.05)


@given(LAWS, AGES, AGES)
def test_delay_is_what_the_design_says(law: Durations, one: float, two: float) -> None:
    """The area of what has been done since, over what was not done then; wherever that can be reckoned in this way."""
    seen, age = sorted((one, two))
    alive = 1.0 - law.done_by(seen)
    if alive > 1e-3:
        area = law.silence(age) - law.silence(seen) - law.done_by(seen) * (age - seen)

        assert law.delay(seen, age) == pytest.approx(area / alive, rel=1e-6, abs=1e-5)


@given(LAWS, AGES, AGES, AGES)
def test_delay_grows_with_the_age_and_never_beyond_the_silence(
    law: Durations, one: float, two: float, three: float
) -> None:
    """The longer nobody has looked, the more a look is worth."""
    seen, age, later = sorted((one, two, three))

    assert law.delay(seen, seen) == 0.0
    assert 0.0 <= law.delay(seen, age) <= law.delay(seen, later) + 1e-6
    assert law.delay(seen, later) <= later - seen + 1e-6


@given(LAWS, AGES, PRICES)
def test_next_look_comes_when_the_delay_is_worth_the_price(law: Durations, seen: float, price: float) -> None:
    at = law.next_look(seen, price)

    assert at >= seen
    assert law.delay(seen, at) == pytest.approx(price, rel=1e-4, abs=1e-5)


@given(LAWS, AGES, PRICES, PRICES)
def test_higher_price_never_lets_a_look_come_earlier(law: Durations, seen: float, one: float, two: float) -> None:
    low, high = sorted((one, two))

    assert law.next_look(seen, low) <= law.next_look(seen, high) + 1e-6


@pytest.mark.parametrize("seen", [LAST, 1e6, 1e9])
def test_jobs_older_than_all_bins_are_looked_at_less_and_less_often(seen: float) -> None:
    """Nothing is known of them but that they last: they must not take all looks for being overdue."""
    pause = peaks((50, 1.0)).next_look(seen, 1.0) - seen

    assert pause == pytest.approx((2 * seen * 0.12) ** 0.5, rel=1e-3)


def test_price_beyond_the_tail_is_waited_for() -> None:
    """The end is expected within 120 s, so a minute of the silence is not yet delay."""
    assert peaks((50, 1.0)).next_look(1_000.0, 100.0) == 1_160.0


@given(LAWS, st.lists(st.floats(0.0, 1_000.0), min_size=1, max_size=4), PRICES)
@settings(max_examples=200)
def test_next_look_from_many_starts_comes_when_the_mean_silence_is_worth_the_price(
    law: Durations, starts: list[float], price: float
) -> None:
    at = law.next_look_from(starts, price)

    silence = sum(law.silence(at - start) for start in starts) / len(starts)
    assert silence == pytest.approx(price, rel=0.02, abs=1e-5)


def test_next_look_from_one_start_is_that_of_a_job_that_begins_then() -> None:
    law = log_normal(20.0, 0.3)

    assert law.next_look_from([100.0], 0.5) == pytest.approx(100.0 + law.next_look(0.0, 0.5), rel=1e-6)


def test_hint_draws_the_expected_end_near() -> None:
    """A job that may last from seconds to minutes, and is now known to last about one."""
    hinted = log_normal(30.0, 1.0).given(Hint(log(60.0), 0.1))

    low, middle, high = hinted.quantiles(0.0, [0.25, 0.5, 0.75])
    assert 48.0 < low < middle < high < 78.0
    assert middle == pytest.approx(60.0, rel=0.1)


def test_hint_counts_the_less_the_farther_off_a_duration_is() -> None:
    """In the shape of a bell, of which a fiftieth is left everywhere."""
    hinted = peaks(flat=1.0).given(Hint(LOG_CENTRES[60], 3 * LOG_STEP)).weights

    assert hinted[63] / hinted[60] == pytest.approx((exp(-0.5) + 0.02) / 1.02, rel=0.01)
    assert hinted[54] / hinted[60] == pytest.approx((exp(-2.0) + 0.02) / 1.02, rel=0.01)
    assert hinted[0] / hinted[60] == pytest.approx(0.02 / 1.02)


def test_hint_is_doubted() -> None:
    """Progress that has stopped is no proof that the job has ended: what was thought before stays possible."""
    hinted = log_normal(60.0, 0.3).given(Hint(log(30.0), 0.1))

    assert 0.01 < 1.0 - hinted.done_by(50.0) < 0.5


def test_hint_at_what_was_held_to_be_impossible_changes_nothing_else() -> None:
    law = peaks((50, 1.0), (60, 1.0))

    assert law.given(Hint(log(1e4), 0.1)).weights == pytest.approx(law.weights)


def test_no_hint_changes_nothing() -> None:
    law = peaks((50, 1.0))

    assert law.given(None) is law


@pytest.mark.parametrize("odd", [-1.0, -1e9, 1e300, EVER, -EVER, NO_NUMBER, nextafter(LAST, 0.0)])
def test_no_time_breaks_anything(odd: float) -> None:
    """Clocks step, and TAMS may say anything."""
    law = peaks((50, 1.0), (BINS - 1, 1.0))

    for ask in (law.delay, law.mean_between):
        assert isinstance(ask(odd, 10.0) + ask(10.0, odd), float)
    assert isinstance(law.next_look(odd, 1.0), float)
    assert 0.0 <= law.done_by(odd) <= 1.0
    assert len(law.quantiles(odd, [0.25, 0.75])) == 2


@given(LAWS, st.floats(-1e6, 0.0), PRICES)
def test_job_seen_before_it_began_is_looked_at_like_one_that_just_began(
    law: Durations, seen: float, price: float
) -> None:
    """A clock may have stepped back between the two."""
    assert law.next_look(seen, price) == about(law.next_look(0.0, price))
