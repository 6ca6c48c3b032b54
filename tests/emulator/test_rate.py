from hypothesis import given
from hypothesis import strategies as st

from bridge.emulator.rate import PeakRate, RateLimit


def test_five_a_second_admits_five_and_then_one_each_time_one_is_a_second_old() -> None:
    limit = RateLimit()
    assert [limit.wait("app", 5, 10 + n / 10) for n in range(5)] == [0.0] * 5
    assert 0 < limit.wait("app", 5, 10.5) <= 0.5
    assert limit.wait("app", 5, 11.0) == 0.0


def test_scopes_do_not_share() -> None:
    limit = RateLimit()
    assert limit.wait("a", 1, 10) == 0
    assert limit.wait("b", 1, 10) == 0
    assert limit.wait("a", 1, 10) == 1


def test_no_rate_is_no_limit_and_less_than_one_is_a_longer_window() -> None:
    limit = RateLimit()
    assert not any(limit.wait("a", 0, 10) for _ in range(100))
    assert [limit.wait("b", 0.5, moment) for moment in (10, 11, 12)] == [0, 1, 0]


@given(st.lists(st.integers(0, 20 * 64), max_size=60))
def test_no_second_has_more_than_the_rate(ticks: list[int]) -> None:
    limit = RateLimit()
    admitted = [moment for moment in (tick / 64 for tick in sorted(ticks)) if limit.wait("app", 3, moment) == 0]
    assert all(sum(end - 1 < moment <= end for moment in admitted) <= 3 for end in admitted)


def test_the_peak_is_the_busiest_second() -> None:
    peak = PeakRate()
    for moment in (0, 0.5, 0.9, 1.2, 5):
        peak.count(moment)
    assert peak.peak == 3
