from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from bridge.core.breaker import Breaker
from bridge.core.endpoint_queue import EndpointQueue, QueueLimits
from bridge.core.schedule import BackOff
from bridge.webhook_messages import Ordering

NEVER = float("inf")
FREE = QueueLimits(max_in_flight=100, rate=None, ordering=Ordering.NONE)
ORDERED = replace(FREE, ordering=Ordering.JOB)


def queue(limits: QueueLimits = FREE, *, threshold: int = 3) -> EndpointQueue:
    back_off = BackOff(initial=timedelta(seconds=4), limit=timedelta(seconds=16))
    return EndpointQueue(limits, breaker=Breaker(threshold=threshold, back_off=back_off))


def filled(limits: QueueLimits = FREE, *deliveries: str, due: float = 0.0) -> EndpointQueue:
    """Deliveries are named by job and sequence: `a.1`."""
    full = queue(limits)
    for name in deliveries:
        add(full, name, due)
    return full


def add(line: EndpointQueue, name: str, due: float = 0.0) -> None:
    job, _, sequence = name.partition(".")
    line.add(name, job=job, sequence=int(sequence), due=due)


def take(line: EndpointQueue, now: float = 0.0) -> str | None:
    """What may be sent now, if anything may."""
    return line.take(now) if line.available_at() <= now else None


def take_all(line: EndpointQueue, now: float = 0.0) -> list[str]:
    taken: list[str] = []
    while line.available_at() <= now:
        taken.append(line.take(now))
    return taken


# -------------------------------------------------------------------------------------------------------- one at a time


def test_empty_line_has_nothing_to_send() -> None:
    """And is to be waited for."""
    assert (queue().available_at(), len(queue())) == (NEVER, 0)


def test_delivery_is_sent_once_due() -> None:
    """Not before, and once."""
    line = filled(FREE, "a.1", due=5.0)

    assert (line.available_at(), take(line, 4.9)) == (5.0, None)
    assert (take(line, 5.0), take(line, 5.0)) == ("a.1", None)


def test_deliveries_are_sent_in_the_order_in_which_they_are_due() -> None:
    """Of those due at once, the first one ordered comes first."""
    line = filled(FREE, "a.1", "b.1", due=5.0)
    add(line, "c.1", due=3.0)
    add(line, "d.1", due=5.0)

    assert take_all(line, 9.0) == ["c.1", "a.1", "b.1", "d.1"]


def test_delivery_that_is_in_line_is_not_put_there_again() -> None:
    """A replay may ask for what waits already, or is under way."""
    line = filled(FREE, "a.1")
    add(line, "a.1", due=-1.0)

    assert take_all(line) == ["a.1"]
    add(line, "a.1")

    assert (take_all(line), len(line)) == ([], 1)


def test_delivery_stays_in_line_until_it_has_ended() -> None:
    """What is under way counts."""
    line = filled(FREE, "a.1", "b.1")
    take(line)

    assert (len(line), line.in_flight, line.is_under_way("a.1"), line.is_under_way("b.1")) == (2, 1, True, False)

    line.remove("a.1")
    line.remove("a.1")

    assert (len(line), line.in_flight, line.is_under_way("a.1")) == (1, 0, False)


def test_delivery_that_was_put_back_waits_until_it_is_due_again() -> None:
    """Others go on meanwhile."""
    line = filled(FREE, "a.1", "b.1")
    take(line)

    line.put_back("a.1", due=7.0)

    assert take_all(line) == ["b.1"]
    assert (line.available_at(), take(line, 7.0)) == (7.0, "a.1")


def test_waiting_delivery_can_end_without_being_sent() -> None:
    """It is passed over."""
    line = filled(FREE, "a.1", "b.1")

    line.remove("a.1")

    assert (take_all(line), len(line)) == (["b.1"], 1)


def test_delivery_that_ended_can_come_again() -> None:
    """By a replay, at another time."""
    line = filled(FREE, "a.1")
    line.remove("a.1")

    add(line, "a.1", due=3.0)

    assert (line.available_at(), take(line, 3.0), take(line, 3.0)) == (3.0, "a.1", None)


# ----------------------------------------------------------------------------------------------------------- the limits


def test_never_more_are_under_way_than_the_endpoint_allows() -> None:
    """The next one is sent when one ends, in whatever way."""
    line = filled(replace(FREE, max_in_flight=2), "a.1", "b.1", "c.1", "d.1")

    assert (take_all(line), line.available_at()) == (["a.1", "b.1"], NEVER)
    line.remove("a.1")
    assert take_all(line) == ["c.1"]
    line.put_back("b.1", due=50.0)
    assert take_all(line) == ["d.1"]


def test_lowered_cap_holds_at_once() -> None:
    """Those under way end first."""
    line = filled(FREE, "a.1", "b.1", "c.1")
    line.take(0.0)
    line.take(0.0)

    line.follow(replace(FREE, max_in_flight=1))
    line.remove("a.1")

    assert take(line) is None
    line.remove("b.1")
    assert take(line) == "c.1"


def test_failures_halve_what_may_be_under_way_and_success_restores_it() -> None:
    """A receiver that struggles is not helped by a hundred at once; one is always tried."""
    line = filled(replace(FREE, max_in_flight=8), *(f"{job}.1" for job in "abcdefghij"))
    line.breaker = Breaker(threshold=99, back_off=BackOff(initial=timedelta(1), limit=timedelta(1)))
    caps: list[int] = []
    for _ in range(5):
        caps.append(len(take_all(line)))
        for job in "abcdefghij":
            if line.is_under_way(f"{job}.1"):
                line.put_back(f"{job}.1", due=0.0)
        line.failed(now=0.0, chance=0.0)

    line.succeeded()

    assert caps == [8, 4, 2, 1, 1]
    assert len(take_all(line)) == 8


def test_closed_line_sends_nothing() -> None:
    """The user has paused the endpoint, or it is gone."""
    line = filled(FREE, "a.1")

    line.is_open = False
    assert line.available_at() == NEVER

    line.is_open = True
    assert take(line) == "a.1"


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (3.0, [0, 0, 0, 1, 1, 1, 2]),
        (1.0, [0, 1, 2, 3, 4, 5, 6]),
        (0.5, [0, 2, 4, 6, 8, 10, 12]),
        (2.5, [0, 0, 0, 1.2, 1.2, 1.2, 2.4]),
    ],
)
def test_rate_is_kept_to_within_every_second(rate: float, times: list[float]) -> None:
    """As many as allowed at once, then none for the rest of it."""
    line, now = filled(replace(FREE, rate=rate), *(f"{job}.1" for job in "abcdefg")), 0.0
    sent: list[float] = []
    for _ in range(7):
        now = max(now, line.available_at())
        sent.append(now)
        line.take(now)

    assert sent == pytest.approx(times)


def test_rate_counts_what_has_ended_too() -> None:
    """An endpoint that answers quickly, one by one, gets no more than it wants."""
    line = queue(replace(FREE, rate=2.0))
    sent = 0
    for number in range(10):
        add(line, f"a.{number}", due=0.1 * number)
        taken = take(line, 0.1 * number)
        if taken is not None:
            line.remove(taken)
            sent += 1

    assert sent == 2


def test_changed_rate_holds_at_once() -> None:
    """In both directions."""
    line = filled(replace(FREE, rate=4.0), *(f"{job}.1" for job in "abcdefgh"))
    assert len(take_all(line, 0.0)) == 4

    line.follow(replace(FREE, rate=1.0))
    assert line.available_at() == 1.0

    line.follow(FREE)
    assert len(take_all(line, 0.5)) == 4


def test_what_was_sent_is_remembered_no_longer_than_the_rate_asks_for() -> None:
    """An endpoint may take deliveries for years."""
    line = queue(replace(FREE, rate=2.0))
    for number in range(100):
        add(line, f"a.{number}")
        line.remove(line.take(float(number)))

    assert len(line._begun) <= 2


@given(
    rate=st.floats(0.1, 20),
    steps=st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_rate_is_never_exceeded_and_always_reached(rate: float, steps: list[float]) -> None:
    """However irregularly time passes: no stretch of a second (or of one POST) holds more, and none is left unused."""
    line, now, sent = queue(replace(FREE, max_in_flight=10**6, rate=rate)), 0.0, list[float]()
    span = max(1.0, 1 / rate)
    most = -(-rate // 1) if rate >= 1 else 1
    for number in range(1_300):
        add(line, f"a.{number}")
    for step in steps:
        now += step
        sent += [now] * len(take_all(line, now))
        assert len([moment for moment in sent if moment > now - span]) <= most
        assert len([moment for moment in sent if moment > now - span * 1.999]) >= 1


# ---------------------------------------------------------------------------------------------------- order within jobs


def test_events_of_one_job_wait_for_each_other() -> None:
    """Other jobs go on."""
    line = filled(ORDERED, "a.1", "a.2", "b.1")

    assert take_all(line) == ["a.1", "b.1"]
    line.remove("a.1")
    assert take_all(line) == ["a.2"]


def test_without_order_nothing_waits() -> None:
    """All at once."""
    assert take_all(filled(FREE, "a.1", "a.2", "a.3")) == ["a.1", "a.2", "a.3"]


def test_failed_event_holds_back_the_later_ones_of_its_job_alone() -> None:
    """Until its next attempt."""
    line = filled(ORDERED, "a.1", "a.2", "b.1", "b.2")
    take_all(line)

    line.put_back("a.1", due=9.0)
    line.remove("b.1")

    assert take_all(line) == ["b.2"]
    assert (line.available_at(), take_all(line, 9.0)) == (9.0, ["a.1"])


def test_earliest_event_goes_first_whenever_it_came() -> None:
    """A replay brings old ones."""
    line = filled(ORDERED, "a.5", "a.7")
    add(line, "a.3")
    add(line, "a.6")
    sent: list[str] = []
    for _ in range(4):
        sent += take_all(line)
        line.remove(sent[-1])

    assert sent == ["a.3", "a.5", "a.6", "a.7"]


def test_earlier_event_overtakes_one_that_is_to_be_tried_again() -> None:
    """It arrived while the other was under way."""
    line = filled(ORDERED, "a.5")
    take(line)
    add(line, "a.3")
    assert take(line) is None

    line.put_back("a.5", due=0.0)

    assert take_all(line) == ["a.3"]


def test_later_event_goes_on_when_the_first_ends_while_it_waits() -> None:
    """Superseded, or too old."""
    line = filled(ORDERED, "a.1", "a.2", due=9.0)

    line.remove("a.1")

    assert take_all(line, 9.0) == ["a.2"]


def test_waiting_event_can_end_while_an_earlier_one_is_under_way() -> None:
    """It leaves the line, and the first is still waited for."""
    line = filled(ORDERED, "a.1", "a.2", "a.3")
    take(line)

    line.remove("a.2")

    assert take(line) is None
    line.remove("a.1")
    assert take_all(line) == ["a.3"]


def test_last_event_can_end_while_an_earlier_one_is_under_way() -> None:
    """The job is not forgotten: what comes next still waits."""
    line = filled(ORDERED, "a.1", "a.2")
    take(line)
    line.remove("a.2")

    add(line, "a.3")

    assert take(line) is None


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_events_of_a_job_go_in_order_whichever_end_meanwhile(arrivals: list[int], ended: set[int]) -> None:
    """Wherever in the line they were."""
    line = filled(ORDERED, *(f"a.{number}" for number in arrivals))
    for number in ended:
        line.remove(f"a.{number}")

    sent: list[str] = []
    while line.available_at() <= 0.0:
        sent.append(line.take(0.0))
        line.remove(sent[-1])

    assert sent == [f"a.{number}" for number in range(12) if number not in ended]


def test_earlier_events_that_wait_can_be_told() -> None:
    """Those may be superseded; not the one under way."""
    line = filled(ORDERED, "a.1", "a.2", "a.3", "a.4", "b.1")
    take_all(line)

    assert sorted(line.waiting_before("a", 4)) == ["a.2", "a.3"]
    assert line.waiting_before("c", 4) == []


def test_without_order_none_are_superseded() -> None:
    """There is no line to look at."""
    assert filled(FREE, "a.1", "a.2").waiting_before("a", 2) == []


def test_order_asked_for_later_holds_for_what_waits_and_what_is_under_way() -> None:
    """Two of one job may still be under way from before; a third is not sent beside them."""
    line = filled(FREE, "a.1", "a.2")
    take_all(line)
    add(line, "a.3")
    add(line, "b.1")

    line.follow(ORDERED)

    assert take_all(line) == ["b.1"]
    line.remove("a.1")
    assert take(line) is None
    line.put_back("a.2", due=5.0)
    assert take(line) is None
    assert take_all(line, 5.0) == ["a.2"]


def test_order_given_up_lets_everything_go() -> None:
    """Also what failed, and what is under way comes back without harm."""
    line = filled(ORDERED, "a.1", "a.2", "a.3")
    take(line)

    line.follow(FREE)

    assert take_all(line) == ["a.2", "a.3"]
    line.put_back("a.1", due=5.0)
    line.remove("a.2")
    assert take_all(line, 5.0) == ["a.1"]


# ------------------------------------------------------------------------------------------- failing, pausing, resuming


def test_line_that_fails_is_probed_one_by_one() -> None:
    """Skipped deliveries stay as they are."""
    line = filled(FREE, "a.1", "b.1", "c.1")
    for _ in range(3):
        line.failed(now=100.0, chance=1.0)

    assert (line.available_at(), take_all(line, 104.0), line.available_at()) == (104.0, ["a.1"], NEVER)
    line.failed(now=105.0, chance=1.0)
    line.put_back("a.1", due=200.0)
    assert (line.available_at(), take_all(line, 113.0)) == (113.0, ["b.1"])


def test_probe_that_succeeds_opens_the_line() -> None:
    """All that waits goes at once."""
    line = filled(FREE, "a.1", "b.1", "c.1")
    line.failed(now=100.0, chance=1.0, at_once=True)
    take(line, 104.0)

    line.succeeded()
    line.remove("a.1")

    assert take_all(line, 104.0) == ["b.1", "c.1"]


def test_probe_that_tells_nothing_is_followed_by_another() -> None:
    """Or the line would be shut for ever."""
    line = filled(FREE, "a.1", "b.1")
    line.failed(now=100.0, chance=1.0, at_once=True)
    take(line, 104.0)
    assert line.available_at() == NEVER

    line.told_nothing()
    line.put_back("a.1", due=104.0)

    assert len(take_all(line, 104.0)) == 1


def test_pause_is_kept_to_the_longest_asked_for() -> None:
    """Two POSTs under way may both be throttled."""
    line = filled(FREE, "a.1")
    line.pause(60.0)
    line.pause(30.0)

    assert (line.available_at(), take(line, 60.0)) == (60.0, "a.1")


def test_success_does_not_end_a_pause() -> None:
    """The receiver has asked for it, and another answer does not take that back."""
    line = filled(FREE, "a.1")
    line.pause(60.0)

    line.succeeded()

    assert line.available_at() == 60.0


def test_what_we_were_held_up_by_may_be_mended() -> None:
    """It goes at once then; until then it waits to the end."""
    line = filled(FREE, "a.1")
    line.hold(60.0)
    line.hold(30.0)
    assert line.available_at() == 60.0

    line.mended()

    assert take(line) == "a.1"


def test_what_was_mended_does_not_cut_short_what_the_receiver_asked_for() -> None:
    """That is another matter."""
    line = filled(FREE, "a.1")
    line.pause(60.0)
    line.hold(90.0)

    line.mended()

    assert line.available_at() == 60.0


def test_line_moves_unless_something_speaks_against_the_endpoint() -> None:
    """Closed, failing, paused or held up, it may keep what it has for long."""
    line = queue()
    assert line.is_moving(0.0)

    line.is_open = False
    assert not line.is_moving(0.0)
    line.is_open = True
    line.pause(60.0)
    assert [line.is_moving(59.0), line.is_moving(60.0)] == [False, True]
    line.hold(90.0)
    assert [line.is_moving(89.0), line.is_moving(90.0)] == [False, True]
    line.failed(now=90.0, chance=0.0)
    assert not line.is_moving(90.0)
    line.succeeded()
    assert line.is_moving(90.0)


def test_resuming_forgets_pauses_and_failures() -> None:
    """The user wants POSTs now."""
    line = filled(FREE, "a.1", "b.1", "c.1")
    line.pause(60.0)
    line.hold(60.0)
    line.failed(now=0.0, chance=1.0, at_once=True)

    line.resume()

    assert len(take_all(line)) == 3


def test_line_of_which_nothing_is_taken_does_not_grow_beyond_what_waits() -> None:
    """Each event of a paused endpoint may supersede the last, for weeks."""
    line = queue(ORDERED)
    line.is_open = False
    for number in range(1_000):
        add(line, f"a.{number}", due=float(number))
        line.remove(f"a.{number - 1}")

    assert len(line._ready) < 100
    line.is_open = True
    assert take_all(line, 2_000.0) == ["a.999"]


# ---------------------------------------------------------------------------------------------- against a plain account


@dataclass
class Waiting:
    job: str
    sequence: int
    due: float
    under_way: bool = False


@dataclass
class Plain:
    """The same line kept without cleverness."""

    limits: QueueLimits
    deliveries: dict[str, Waiting] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    paused_until: float = 0.0
    is_open: bool = True

    def sendable(self, now: float) -> set[str]:
        under_way = [each for each in self.deliveries.values() if each.under_way]
        busy = len(under_way) >= self.limits.max_in_flight
        rate = self.limits.rate
        hasty = rate is not None and len([moment for moment in self.sent if moment > now - 1]) >= rate
        if busy or hasty or not self.is_open or now < self.paused_until:
            return set()
        return {name for name, each in self.deliveries.items() if self._is_free(each) and each.due <= now}

    def _is_free(self, delivery: Waiting) -> bool:
        if self.limits.ordering is Ordering.NONE or delivery.under_way:
            return not delivery.under_way
        others = [each for each in self.deliveries.values() if each.job == delivery.job and each is not delivery]
        return not any(each.under_way or each.sequence < delivery.sequence for each in others)


class AnyHistory(RuleBasedStateMachine):
    """A line and its plain account see the same; after each step they must allow the same."""

    def __init__(self) -> None:
        super().__init__()
        limits = QueueLimits(max_in_flight=3, rate=None, ordering=Ordering.NONE)
        self.line, self.plain, self.now, self.number = queue(limits), Plain(limits), 0.0, 0

    @rule(job=st.sampled_from("ab"), sequence=st.integers(1, 9), wait=st.sampled_from([0.0, 0.0, 3.0]))
    def add(self, job: str, sequence: int, wait: float) -> None:
        name, due = f"{job}.{sequence}", self.now + wait
        self.line.add(name, job=job, sequence=sequence, due=due)
        self.plain.deliveries.setdefault(name, Waiting(job, sequence, due))

    @precondition(lambda self: self.line.available_at() <= self.now)
    @rule()
    def take(self) -> None:
        allowed = self.plain.sendable(self.now)
        name = self.line.take(self.now)
        assert name in allowed
        assert self.plain.deliveries[name].due == min(self.plain.deliveries[each].due for each in allowed)
        self.plain.deliveries[name].under_way = True
        self.plain.sent.append(self.now)

    @precondition(lambda self: any(each.under_way for each in self.plain.deliveries.values()))
    @rule(data=st.data(), again=st.booleans(), wait=st.sampled_from([0.0, 3.0]))
    def end_one_under_way(self, data: st.DataObject, wait: float, *, again: bool) -> None:
        name = data.draw(st.sampled_from([name for name, each in self.plain.deliveries.items() if each.under_way]))
        if again:
            self.line.put_back(name, due=self.now + wait)
            self.plain.deliveries[name].due = self.now + wait
            self.plain.deliveries[name].under_way = False
        else:
            self.line.remove(name)
            del self.plain.deliveries[name]

    @precondition(lambda self: self.plain.deliveries)
    @rule(data=st.data())
    def remove_any(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.plain.deliveries)))
        self.line.remove(name)
        del self.plain.deliveries[name]

    @rule(most=st.integers(1, 3), rate=st.sampled_from([None, 1.0, 3.0]), ordering=st.sampled_from(Ordering))
    def follow(self, most: int, rate: float | None, ordering: Ordering) -> None:
        limits = QueueLimits(max_in_flight=most, rate=rate, ordering=ordering)
        self.line.follow(limits)
        self.plain.limits = limits
        self.now += 1.0  # what was sent before under another rate no longer counts

    @rule(is_open=st.booleans())
    def open(self, *, is_open: bool) -> None:
        self.line.is_open = self.plain.is_open = is_open

    @rule()
    def pause(self) -> None:
        self.line.pause(self.now + 2.0)
        self.plain.paused_until = self.now + 2.0

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def allows_the_same(self) -> None:
        assert (self.line.available_at() <= self.now) is bool(self.plain.sendable(self.now))
        assert len(self.line) == len(self.plain.deliveries)
        assert self.line.in_flight == sum(each.under_way for each in self.plain.deliveries.values())

    @override
    def teardown(self) -> None:
        for name in list(self.plain.deliveries):
            self.line.remove(name)
        assert (len(self.line), self.line.in_flight, self.line._lines) == (0, 0, {})
        self.line.is_open = True
        assert (self.line.available_at(), self.line._ready) == (NEVER, [])


TestAnyHistory = AnyHistory.TestCase
