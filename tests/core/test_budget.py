from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.budget import COUNTED_AFTER, RateBudget, Turn, Turns

NEVER = float("inf")
AT_ONCE = float("-inf")

CALLS = st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 3)), min_size=1, max_size=60)
"""Per call: how long after it was allowed it is sent, and how long its answer takes."""


def spend(budget: RateBudget, now: float) -> None:
    """Make a call that is answered at once."""
    budget.take()
    budget.give_back(sent_at=now, now=now)


class Caller:
    """Makes calls as early as its budget allows, and writes down when TAMS may have counted each."""

    def __init__(self, budget: RateBudget) -> None:
        self.budget = budget
        self.now = 0.0
        self.spans: list[tuple[float, float]] = []
        self._under_way: list[tuple[float, float]] = []

    def call(self, answer_time: float, *, until: float = NEVER) -> bool:
        """Make one call, unless it is not allowed before `until`."""
        self._take_answers()
        while (allowed := self.budget.available_at()) > self.now:
            first_answer, _ = min(self._under_way, default=(NEVER, 0.0))
            self.now = min(allowed, first_answer, until)
            if self.now == until:
                return False
            self._take_answers()
        self.budget.take()
        self.spans.append((self.now, self.now + min(answer_time, COUNTED_AFTER)))
        self._under_way.append((self.now + answer_time, self.now))
        return True

    def _take_answers(self) -> None:
        for answered, sent in sorted(call for call in self._under_way if call[0] <= self.now):
            self._under_way.remove((answered, sent))
            self.budget.give_back(sent_at=sent, now=answered)


def make_calls(budget: RateBudget, calls: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Make these calls; gives the span in which TAMS may have counted each."""
    caller = Caller(budget)
    for idle, answer_time in calls:
        caller.now += idle
        caller.call(answer_time)
    return caller.spans


def most_in_a_second(spans: list[tuple[float, float]]) -> int:
    """The most calls that one second of TAMS may hold: as late as possible up to its start, then as early."""
    earliest = sorted(sent for sent, _ in spans)
    latest = sorted(counted for _, counted in spans)
    most = 0
    for start in latest:
        begun = bisect_left(earliest, start + 1.0 - 1e-9)
        over = bisect_left(latest, start)
        most = max(most, begun - over)
    return most


@given(rate=st.integers(1, 20), calls=CALLS)
def test_no_second_holds_more_calls_than_the_rate(rate: int, calls: list[tuple[float, float]]) -> None:
    """Wherever TAMS begins its second, and whenever between sending and answer it counts a call."""
    spans = make_calls(RateBudget(rate), calls)

    assert most_in_a_second(spans) <= rate


@given(rate=st.floats(1, 20), calls=CALLS)
def test_a_rate_with_a_fraction_is_kept_too(rate: float, calls: list[tuple[float, float]]) -> None:
    """5.7 calls a second are five in any second, not six."""
    spans = make_calls(RateBudget(rate), calls)

    assert most_in_a_second(spans) <= rate


@given(rate=st.integers(1, 20), burst=st.integers(1, 20), calls=CALLS)
def test_no_second_holds_more_calls_than_the_rate_however_small_the_bursts(
    rate: int, burst: int, calls: list[tuple[float, float]]
) -> None:
    """A second holds no more than the rate, or than one burst where the user wants bursts above it."""
    spans = make_calls(RateBudget(rate, burst=burst), calls)

    assert most_in_a_second(spans) <= max(rate, burst)


def test_the_whole_rate_may_be_spent_at_once() -> None:
    """A burst up to the rate waits for nothing."""
    budget = RateBudget(5)

    for _ in range(5):
        assert budget.available_at() <= 0.0
        spend(budget, 0.0)

    assert budget.available_at() == 1.0


def test_rates_below_one_a_second_are_kept() -> None:
    """One call in four seconds is a rate, too."""
    budget = RateBudget(0.25)

    spend(budget, 0.0)

    assert budget.available_at() == 4.0


def test_slow_answer_does_not_hold_its_slot_for_a_window_of_its_own() -> None:
    """A call is taken to have been counted soon after it was sent, however late its answer."""
    budget = RateBudget(1)

    budget.take()
    budget.give_back(sent_at=0.0, now=30.0)

    assert budget.available_at() == COUNTED_AFTER + 1.0


def test_call_that_never_went_out_costs_nothing() -> None:
    """A turn that was not used is free at once."""
    budget = RateBudget(1)

    budget.take()
    budget.give_back(sent_at=None, now=3.0)

    assert budget.available_at() == 3.0


def test_no_slot_is_free_while_all_calls_are_under_way() -> None:
    """When the next call may be made depends on the answers."""
    budget = RateBudget(1)

    budget.take()

    assert budget.available_at() == NEVER


def test_unlimited_rate_is_always_available() -> None:
    """Zero switches the limit off."""
    budget = RateBudget(0)

    for _ in range(1_000):
        spend(budget, 0.0)

    assert budget.available_at() == AT_ONCE


@pytest.mark.parametrize("rate", [0, 5])
def test_throttled_makes_no_call_until_the_pause_is_over(rate: int) -> None:
    """What TAMS says about its rate beats what we believe about it."""
    budget = RateBudget(rate)

    budget.throttled(7.0, too_fast=False, now=1.0)

    assert budget.available_at() == 8.0


def test_later_and_shorter_throttle_does_not_cut_the_pause() -> None:
    """The longest pause asked for holds."""
    budget = RateBudget(5)
    budget.throttled(7.0, too_fast=False, now=1.0)

    budget.throttled(1.0, too_fast=False, now=2.0)

    assert budget.available_at() == 8.0


@pytest.mark.parametrize(
    ("cancel", "submit", "look", "turn"),
    [
        (False, False, False, None),
        (True, False, False, Turn.CANCEL),
        (True, True, True, Turn.CANCEL),
        (False, True, False, Turn.SUBMIT),
        (False, False, True, Turn.LOOK),
        (False, True, True, Turn.SUBMIT),
    ],
)
def test_turn_goes_to_what_waits_and_to_cancels_first(
    *, cancel: bool, submit: bool, look: bool, turn: Turn | None
) -> None:
    """A call is only spent on what waits."""
    assert Turns().choose(cancel=cancel, submit=submit, look=look) is turn


def test_submits_and_looks_alternate_while_both_wait() -> None:
    """Neither a flood of requests nor many jobs in flight starve the other."""
    turns = Turns()

    chosen = [turns.choose(cancel=False, submit=True, look=True) for _ in range(4)]

    assert chosen == [Turn.SUBMIT, Turn.LOOK, Turn.SUBMIT, Turn.LOOK]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_submits_get_their_share_of_the_calls_while_both_wait(share: float) -> None:
    turns = Turns(submit_share=share)

    chosen = [turns.choose(cancel=False, submit=True, look=True) for _ in range(1000)]

    assert abs(chosen.count(Turn.SUBMIT) - 1000 * share) <= 1
    assert chosen[0] is Turn.SUBMIT


def test_what_submits_do_not_need_is_not_saved_up_for_them() -> None:
    """A burst after a quiet hour must not shut out the looks."""
    turns = Turns(submit_share=0.5)
    for _ in range(100):
        turns.choose(cancel=False, submit=False, look=True)

    chosen = [turns.choose(cancel=False, submit=True, look=True) for _ in range(10)]

    assert chosen.count(Turn.LOOK) == 5


def test_a_budget_that_was_too_fast_makes_half_the_calls_and_half_at_once() -> None:
    """TAMS may count them strictly: ten at once, and then a pause, would be too many again."""
    budget = RateBudget(10)
    budget.throttled(0.0, too_fast=True, now=100.0)

    for _ in range(5):
        assert budget.available_at(now=100.0) == 100.0
        spend(budget, 100.0)

    assert budget.available_at(now=100.0) == 101.0


def test_the_last_slot_is_used_less_often() -> None:
    budget = RateBudget(1)
    budget.throttled(0.0, too_fast=True, now=100.0)

    spend(budget, 100.0)

    assert budget.available_at(now=100.0) == 102.0


def test_slots_left_alone_are_used_again_once_the_pace_has_recovered() -> None:
    budget = RateBudget(10)
    budget.throttled(0.0, too_fast=True, now=100.0)

    now, calls = 180.0, 0
    while budget.available_at(now=now) <= now:
        spend(budget, now)
        calls += 1

    assert calls == 10


@pytest.mark.parametrize(("admitted", "used"), [(9, 0.85), (5, 0.85), (3, 0.6), (1, 0.5)])
def test_a_rate_lower_than_the_one_set_is_found_and_mostly_used(admitted: int, used: float) -> None:
    """TAMS admits so many calls in any second, of the ten that the settings promise."""
    budget, now, passed, refused = RateBudget(10), 0.0, list[float](), 0
    while now < 600.0:
        now = max(now + 0.01, budget.available_at(now=now))
        budget.take()
        recent = sum(1 for at in passed[-admitted:] if at > now - 1.0)
        if recent < admitted:
            passed.append(now)
        else:
            refused += 1
            budget.throttled(1.0, too_fast=True, now=now)
        budget.give_back(sent_at=now, now=now)

    assert len(passed) / 600.0 / admitted >= used
    assert refused / len(passed) < 0.1


def test_an_overloaded_tams_is_left_alone_but_not_met_more_slowly_afterwards() -> None:
    budget = RateBudget(1)
    budget.throttled(3.0, too_fast=False, now=100.0)

    spend(budget, 103.0)

    assert budget.available_at() == 104.0


def test_slots_are_in_use_from_the_call_until_a_window_after_it() -> None:
    """What the metric shows."""
    budget = RateBudget(5)
    spend(budget, 10.0)
    budget.take()

    assert [budget.in_use(now=now) for now in (10.0, 10.9, 11.0)] == [2, 2, 1]
