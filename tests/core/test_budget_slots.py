"""A budget whose slots come and go: what is not this worker's own is used by others, as much as they may."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.budget import COUNTED_AFTER, RateBudget
from tests.core.test_budget import AT_ONCE, NEVER, most_in_a_second, spend

SLOTS = 3
WINDOW = 1.0


@dataclass
class Account:
    """A worker that calls whenever it may, beside others that use every slot that is not its own all the time.

    Args:
        others: for each slot that is not its own, when it was last used.
    """

    budget: RateBudget = field(default_factory=lambda: RateBudget(SLOTS))
    now: float = 100.0
    others: list[float] = field(default_factory=lambda: [100.0] * SLOTS)
    spans: list[tuple[float, float]] = field(default_factory=lambda: [(100.0, 100.0)] * SLOTS)
    turns: int = 0
    flying: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget.forfeit()

    def wait(self, seconds: float) -> None:
        """Time passes, and the others do not waste it."""
        end = self.now + seconds
        for number, used in enumerate(self.others):
            while self.others[number] + WINDOW <= end:
                self.others[number] += WINDOW
                self._other_call(self.others[number])
            assert used <= end
        self.now = end

    def _other_call(self, at: float) -> None:
        self.spans.append((at, at))

    def gain(self) -> None:
        if self.others:
            used = self.others.pop()
            self.budget.gain(1, free_from=used + WINDOW)

    def give_up(self) -> None:
        """Whoever gets a slot uses it at once."""
        for _ in range(self.budget.give_up(now=self.now)):
            self.others.append(self.now)
            self._other_call(self.now)

    def lapse(self) -> None:
        """It stops making calls, is taken for dead, learns of it late, and may go on with what it then gains."""
        self.budget.renew(self.now)
        self.send()
        self.wait(COUNTED_AFTER + WINDOW)
        while len(self.others) < SLOTS:
            self.others.append(self.now)
            self._other_call(self.now)
        self.budget.forfeit()
        self.budget.renew(NEVER)

    def take(self) -> None:
        while self.budget.available_at(now=self.now) <= self.now:
            self.budget.take()
            self.turns += 1

    def send(self, answer_time: float = 0.05) -> None:
        for _ in range(self.turns):
            if self.budget.may_send(now=self.now):
                self.spans.append((self.now, self.now + min(answer_time, COUNTED_AFTER)))
                self.flying.append((self.now + answer_time, self.now))
            else:
                self.budget.give_back(sent_at=None, now=self.now)
        self.turns = 0

    def answers(self) -> None:
        for answered, sent in [call for call in self.flying if call[0] <= self.now]:
            self.flying.remove((answered, sent))
            self.budget.give_back(sent_at=sent, now=self.now)


STEPS = st.lists(
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, 0.4, 1.0, 1.1]))
    | st.tuples(st.just("send"), st.sampled_from([0.0, 0.05, 3.0]))
    | st.tuples(st.just("owe"), st.integers(0, SLOTS))
    | st.tuples(st.sampled_from(["gain", "gain", "give up", "lapse", "take", "answers"]), st.just(0)),
    max_size=80,
)


def take_step(account: Account, step: str, size: float) -> None:
    match step:
        case "wait":
            account.wait(size)
        case "send":
            account.send(size)
        case "owe":
            account.budget.owe(min(int(size), SLOTS - len(account.others)))
        case "gain":
            account.gain()
        case "give up":
            account.give_up()
        case "lapse":
            account.lapse()
        case "take":
            account.take()
        case _:
            account.answers()


@given(STEPS)
def test_slots_that_come_and_go_are_never_used_by_two(steps: list[tuple[str, float]]) -> None:
    """Whatever was under way when they were lost, and whoever uses them meanwhile."""
    account = Account()
    for step, size in steps:
        take_step(account, step, size)

    assert most_in_a_second(account.spans) <= SLOTS


@given(STEPS)
def test_slots_that_come_and_go_are_all_there_in_the_end(steps: list[tuple[str, float]]) -> None:
    account = Account()
    for step, size in steps:
        take_step(account, step, size)

    while account.others:
        account.gain()
    account.budget.owe(0)
    account.send(0.0)
    account.wait(5.0)
    account.answers()
    account.wait(5.0)
    account.take()

    assert account.turns == SLOTS


def shared(slots: int) -> RateBudget:
    """A budget that begins with so many slots of its own."""
    budget = RateBudget(5)
    budget.forfeit()
    budget.gain(slots, free_from=0.0)
    return budget


def test_whole_rate_is_what_a_worker_begins_with() -> None:
    budget = RateBudget(5)

    assert (budget.slots, budget.window) == (5, 1.0)
    assert budget.available_at() == AT_ONCE


@pytest.mark.parametrize(("rate", "slots", "window"), [(0.25, 1, 4.0), (5.7, 5, 1.0), (20.0, 20, 1.0)])
def test_any_rate_is_a_whole_number_of_slots(rate: float, slots: int, window: float) -> None:
    budget = RateBudget(rate)

    assert (budget.slots, budget.window) == (slots, window)


def test_nothing_is_available_once_all_slots_are_forfeited() -> None:
    budget = RateBudget(5)

    budget.forfeit()

    assert budget.available_at(now=1_000.0) == NEVER


def test_slots_are_free_from_when_they_were_said_to_be() -> None:
    budget = RateBudget(5)
    budget.forfeit()

    budget.gain(1, free_from=7.0)

    assert budget.available_at() == 7.0
    assert budget.available_at(now=9.0) == 9.0


def test_what_is_owed_is_used_no_more_and_the_freest_goes_first() -> None:
    budget = shared(2)
    spend(budget, 1.0)

    budget.owe(1)

    assert budget.available_at() == 2.0
    assert budget.gives_up_at() == 0.0
    assert budget.give_up(now=1.0) == 1
    assert budget.give_up(now=9.0) == 0


def test_slot_is_given_up_only_once_it_is_free() -> None:
    """Whoever gets it may use it at once."""
    budget = shared(1)
    spend(budget, 1.0)

    budget.owe(1)

    assert budget.gives_up_at() == 2.0
    assert budget.give_up(now=1.9) == 0
    assert budget.give_up(now=2.0) == 1


def test_slot_of_a_call_under_way_is_given_up_after_its_answer() -> None:
    budget = shared(1)
    budget.take()
    budget.owe(1)
    assert budget.gives_up_at() == NEVER

    budget.give_back(sent_at=1.0, now=1.05)

    assert budget.available_at() == NEVER
    assert budget.gives_up_at() == pytest.approx(2.05)


def test_slots_that_come_back_after_one_was_given_up_are_used_again() -> None:
    """What was owed has been paid."""
    budget = shared(2)
    budget.take()
    budget.owe(1)
    assert budget.give_up(now=1.0) == 1

    budget.give_back(sent_at=1.0, now=1.0)

    assert budget.available_at() == 2.0


def test_what_was_owed_before_a_forfeit_is_owed_no_more() -> None:
    budget = shared(1)
    budget.owe(1)
    budget.forfeit()
    budget.gain(1, free_from=3.0)

    budget.take()
    budget.give_back(sent_at=3.0, now=3.0)

    assert budget.available_at() == 4.0


def test_slot_that_is_not_owed_any_more_is_used_again() -> None:
    budget = shared(1)
    budget.owe(1)

    budget.owe(0)

    assert budget.available_at() == 0.0
    assert budget.give_up(now=1.0) == 0


def test_no_call_is_made_after_the_slots_were_last_known_to_be_ours() -> None:
    budget = shared(2)
    budget.take()
    budget.renew(5.0)

    assert budget.may_send(now=4.9)
    assert not budget.may_send(now=5.0)
    assert budget.available_at(now=4.9) == 4.9
    assert budget.available_at(now=5.0) == NEVER

    budget.renew(6.0)
    assert budget.may_send(now=5.0)
    assert budget.available_at(now=5.0) == 5.0


def test_call_taken_before_a_forfeit_is_not_sent_after_it() -> None:
    """Its slot is another's."""
    budget = shared(1)
    budget.take()

    budget.forfeit()

    assert not budget.may_send(now=1.0)


def test_call_taken_before_a_forfeit_may_use_a_slot_gained_since_once_that_is_free() -> None:
    budget = shared(1)
    budget.take()
    budget.forfeit()

    budget.gain(1, free_from=3.0)

    assert budget.available_at() == NEVER
    assert not budget.may_send(now=2.9)
    assert budget.may_send(now=3.0)


def test_answer_to_a_call_of_before_does_not_free_a_slot_before_its_time() -> None:
    budget = shared(1)
    budget.take()
    budget.forfeit()
    budget.gain(1, free_from=30.0)

    budget.give_back(sent_at=1.0, now=12.0)

    assert budget.available_at() == 30.0


def test_slot_of_a_call_of_before_is_given_up_no_earlier_than_it_may_be_used() -> None:
    budget = shared(1)
    budget.take()
    budget.forfeit()
    budget.gain(1, free_from=30.0)
    budget.owe(1)

    budget.give_back(sent_at=1.0, now=12.0)

    assert budget.gives_up_at() == 30.0


def test_while_a_call_of_before_waits_for_its_slot_no_other_is_offered() -> None:
    """It could not be sent: which of the two calls was there before, nobody knows."""
    budget = shared(1)
    budget.take()
    budget.forfeit()
    budget.gain(1, free_from=30.0)

    budget.gain(1, free_from=0.0)

    assert budget.available_at() == 30.0


def test_unlimited_rate_may_always_be_used() -> None:
    """There are no slots to share."""
    budget = RateBudget(0)

    budget.forfeit()
    budget.renew(0.0)

    assert budget.available_at(now=1.0) == AT_ONCE
    assert budget.may_send(now=1.0)


def test_answer_to_a_call_of_before_brings_no_slot_back_while_none_was_gained() -> None:
    """Its slot is somebody else's by then."""
    budget = RateBudget(SLOTS)
    budget.take()
    budget.forfeit()

    budget.give_back(sent_at=0.0, now=0.5)

    assert budget.available_at() == NEVER
