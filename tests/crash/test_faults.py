"""Plans are data: what they promise can be told without any process."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.faults import BROKERS, KAFKA_LINKS, NODES, SPARE, Fault, Kind, draw_plan

SEEDS = st.integers(0, 2**32)
DURATIONS = st.floats(5, 90)


@given(SEEDS, DURATIONS)
def test_the_plan_of_a_seed_is_always_the_same(seed: int, duration_s: float) -> None:
    assert draw_plan(seed, duration_s) == draw_plan(seed, duration_s)


def test_seeds_have_plans_of_their_own() -> None:
    assert draw_plan(1, 20) != draw_plan(2, 20)


@given(SEEDS, DURATIONS)
def test_everything_is_put_right_within_the_plans_time(seed: int, duration_s: float) -> None:
    plan = draw_plan(seed, duration_s)

    assert plan
    assert [at for at, _ in plan] == sorted(at for at, _ in plan)
    assert all(at >= 0 and fault.for_s >= 0 and at + fault.for_s <= duration_s + 0.001 for at, fault in plan)


@given(SEEDS, DURATIONS)
def test_of_one_lane_no_two_faults_hold_at_once(seed: int, duration_s: float) -> None:
    """So at the most one broker is down, and no process is stopped while it is dead."""
    until: dict[str, float] = {}
    for at, fault in draw_plan(seed, duration_s):
        assert at >= until.get(fault.lane, 0.0)
        until[fault.lane] = at + fault.for_s


@pytest.mark.parametrize("target", [*NODES, *KAFKA_LINKS, BROKERS])
def test_whatever_befalls_brokers_is_one_lane(target: str) -> None:
    assert Fault(kind=Kind.STALL, target=target).lane == BROKERS


def test_three_short_plans_have_nearly_every_kind_and_a_long_one_has_all() -> None:
    short = Counter(fault.kind for seed in range(3) for _, fault in draw_plan(seed, 20))
    long = Counter(fault.kind for _, fault in draw_plan(0, 60))

    assert len(short) >= len(Kind) - 1
    assert set(long) == set(Kind)


@given(SEEDS)
def test_faults_overlap(seed: int) -> None:
    """One at a time would show little: there is a moment at which two hold."""
    plan = [(at, at + fault.for_s) for at, fault in draw_plan(seed, 60)]

    assert any(second < end for (_, end), (second, _) in pairwise(plan))


@given(SEEDS, DURATIONS)
def test_amounts_are_such_as_can_be_survived(seed: int, duration_s: float) -> None:
    for _, fault in draw_plan(seed, duration_s):
        match fault.kind:
            case Kind.CLOCK:
                assert 0 < abs(fault.amount) <= 30
            case Kind.SLOW:
                assert 0 < fault.amount < 1
            case Kind.IN_HAND | Kind.THROTTLED | Kind.BROKEN | Kind.GARBAGE | Kind.NEVER:
                assert 0 < fault.amount <= 1
            case Kind.JOIN:
                assert fault.target == SPARE
            case _:
                pass
