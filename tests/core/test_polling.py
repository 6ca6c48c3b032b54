from collections import deque
from collections.abc import Hashable
from math import inf, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.polling import NEVER, JobHistory, LeastDelay, LookReason, PollPolicy
from bridge.core.run_times import RunTimes
from bridge.messages import NOTHING, JobView

INTERVAL, FLOOR = 10.0, 60.0
SILENCE_TURNS = 8
KIND = "sort/exact"


def look(status: str, *, progress: float = 0.0, rank: int | None = None) -> JobView:
    """What a look shows."""
    return JobView(
        job_id="7", status=status, queue_rank=rank, progress=progress, finished_nodes=0, failure=None, document=NOTHING
    )


RUNNING, ENDED = look("RUNNING"), look("SUCCESS")


def since(seen_at: float, *, kind: str = KIND, running: bool = True) -> JobHistory:
    """A job that TAMS has just begun to run, or taken, when it was seen."""
    return JobHistory(kind=kind, submitted_at=seen_at, seen_at=seen_at, running_at=seen_at if running else None)


def known(**medians: float) -> RunTimes:
    """What is known after many jobs of these kinds."""
    run_times, chance = RunTimes(), Random(1)
    for kind, median in medians.items():
        for _ in range(200):
            run_time = chance.lognormvariate(log(median), 0.2)
            run_times.learn(kind, 0.98 * run_time, 1.02 * run_time)
    return run_times


def policy(
    *keys: str, now: float = 0.0, run_times: RunTimes | None = None, interval: float = INTERVAL, floor: float = FLOOR
) -> LeastDelay:
    """Jobs that were added in this order."""
    least = LeastDelay(run_times or RunTimes(), RunTimes(), interval=interval, max_silence=floor)
    for key in keys:
        least.add(key, since(now), now=now)
    return least


# ---- jobs that come and go


def test_nobody_to_look_at_is_never_worth_a_call() -> None:
    """An idle worker makes no calls."""
    assert policy().available_at() == NEVER


def test_first_look_comes_one_interval_after_the_job_was_seen() -> None:
    """TAMS has just answered the create: there is nothing new to see."""
    assert policy("a", now=5.0).available_at() == 15.0


def test_job_that_was_seen_long_ago_may_be_looked_at_now() -> None:
    """Another process has tracked it until now."""
    least = policy()

    least.add("a", since(5.0), now=100.0)

    assert least.available_at() <= 100.0


def test_job_added_twice_keeps_its_place() -> None:
    """Saying again that a job is to be looked at does not put it off."""
    least = policy("a", now=0.0)

    least.add("a", since(9.0), now=9.0)

    assert (len(least), least.available_at()) == (1, 10.0)


def test_discarded_job_is_not_offered() -> None:
    """An ended job costs no more calls."""
    least = policy("a", "b")

    least.discard("a")

    assert (len(least), least.available_at(), least.take(now=10.0)) == (1, 10.0, "b")


def test_discarding_an_unknown_job_changes_nothing() -> None:
    """A job may end twice, in the eyes of its owner."""
    least = policy("a")

    least.discard("z")

    assert len(least) == 1


def test_job_under_look_is_not_offered_again() -> None:
    """Two looks at one job at once would tell nothing more."""
    least = policy("a")

    least.take(now=10.0)

    assert (len(least), least.available_at()) == (1, NEVER)


def test_job_comes_again_one_interval_after_its_look() -> None:
    least = policy("a")

    least.looked(least.take(now=10.0), RUNNING, now=12.0)

    assert least.available_at() == 22.0


def test_job_discarded_under_look_does_not_come_back() -> None:
    """The look that was under way does not bring an ended job back."""
    least = policy("a")
    key = least.take(now=10.0)
    least.discard(key)

    least.looked(key, None, now=12.0)

    assert (len(least), least.available_at()) == (0, NEVER)


def test_look_at_the_job_before_tells_nothing_of_the_one_that_came_anew_under_its_key() -> None:
    """The end it has shown is not that of the new job, which is neither learned from nor put off."""
    run_times = RunTimes()
    least = policy("a", run_times=run_times)
    key = least.take(now=10.0)
    least.discard(key)
    least.add(key, since(20.0), now=20.0)

    least.looked(key, ENDED, now=25.0)

    assert least.available_at() == 30.0
    assert len(run_times) == 0


def test_many_jobs_whose_rest_ends_at_once_all_get_their_turn() -> None:
    """After a start all jobs are new; the first look does not wait until each of them is put in line."""
    least = policy(*map(str, range(1_500)), now=0.0)

    taken = {least.take(now=1_000.0 + number) for number in range(1_500)}

    assert len(taken) == 1_500
    assert least.available_at() == NEVER


# ---- looks that show nothing


def test_looks_that_show_nothing_are_made_less_and_less_often() -> None:
    """Until the floor is reached: what does not answer takes no calls from what does."""
    least = policy("a")

    pauses = []
    for _ in range(5):
        now = least.available_at()
        least.looked(least.take(now=now), None, now=now)
        pauses.append(least.available_at() - now)

    assert pauses == [20.0, 40.0, 60.0, 60.0, 60.0]


def test_pauses_are_short_again_once_something_was_seen() -> None:
    least = policy("a")
    least.looked(least.take(now=10.0), None, now=10.0)

    least.looked(least.take(now=30.0), RUNNING, now=30.0)

    assert least.available_at() == 40.0


def test_job_that_never_answers_is_looked_at_for_ever() -> None:
    """However long that goes on."""
    least, now = policy("a"), 0.0

    for _ in range(2_000):
        now = least.available_at()
        least.looked(least.take(now=now), None, now=now)

    assert least.available_at() - now == FLOOR


# ---- jobs that hurry


def test_hurried_job_comes_at_once_and_before_all_others() -> None:
    """After a cancel the end is near."""
    least = policy("a", "b")
    least.add("c", since(-100.0), now=0.0)

    least.hurry("b", now=1.0)

    assert least.available_at() <= 1.0
    assert least.take(now=1.0) == "b"
    assert least.looks == {LookReason.HURRY: 1}


def test_hurried_jobs_come_in_the_order_of_their_hurry() -> None:
    least = policy("a", "b", "c")
    for key in ("b", "c", "b", "a"):
        least.hurry(key, now=1.0)

    assert [least.take(now=1.0) for _ in range(3)] == ["c", "b", "a"]


def test_hurry_for_an_unknown_job_changes_nothing() -> None:
    """The job may have ended in the meantime."""
    least = policy()

    least.hurry("a", now=1.0)

    assert least.available_at() == NEVER


def test_hurried_look_is_no_hurry_for_the_next() -> None:
    least = policy("a")
    least.hurry("a", now=1.0)

    least.looked(least.take(now=1.0), RUNNING, now=2.0)

    assert least.available_at() == 12.0
    least.take(now=12.0)
    assert least.looks[LookReason.HURRY] == 1


def test_hurried_look_that_showed_nothing_is_repeated_first_of_all_after_a_pause() -> None:
    """What has happened to the job is still to be seen, but the pause holds for it, too."""
    least = policy("a", "b")
    least.hurry("a", now=1.0)
    least.looked(least.take(now=1.0), None, now=1.0)

    assert least.available_at() == 10.0
    assert [least.take(now=21.0), least.take(now=21.0)] == ["a", "b"]


@pytest.mark.parametrize("shown", [None, RUNNING])
def test_job_hurried_under_look_is_looked_at_again_right_after(shown: JobView | None) -> None:
    """The look under way may have been answered before what is known to have happened."""
    least = policy("a")
    key = least.take(now=10.0)

    least.hurry(key, now=11.0)
    offered_during_look = least.available_at()
    least.looked(key, shown, now=12.0)

    assert offered_during_look == NEVER
    assert least.available_at() <= 12.0
    assert least.take(now=12.0) == "a"


def test_job_hurried_under_the_look_that_shows_its_end_is_in_no_hurry() -> None:
    least = policy("a")
    key = least.take(now=10.0)
    least.hurry(key, now=11.0)

    least.looked(key, ENDED, now=12.0)

    assert least.available_at() == 22.0


def test_hurry_is_forgotten_with_its_job() -> None:
    """A job that comes anew under the same key is not hurried for what happened to the one before."""
    least = policy("a")
    least.hurry("a", now=11.0)
    least.discard("a")

    least.add("a", since(20.0), now=20.0)

    assert least.available_at() == 30.0


# ---- whose turn it is


def test_job_whose_end_is_nearer_comes_first() -> None:
    """Both were taken at the same time; one kind takes 20 s, the other minutes."""
    least = policy(run_times=known(short=20.0, long=300.0))
    least.add("b", since(0.0, kind="long", running=False), now=0.0)
    least.add("a", since(0.0, kind="short", running=False), now=0.0)

    assert least.take(now=25.0) == "a"


@given(st.permutations([0.0, 1.0, 3.0, 7.0, 20.0, 33.0, 47.0]))
def test_of_jobs_alike_the_one_not_seen_for_the_longest_comes_first(seen: list[float]) -> None:
    """The longer the silence, the more a look is worth."""
    least = policy()
    for at in seen:
        least.add(at, since(at, running=False), now=47.0)

    assert [least.take(now=58.0) for _ in range(7)] == sorted(seen)


def test_job_is_looked_at_no_much_later_than_in_turn_while_little_is_known() -> None:
    """One job of the kind has taken an hour; that alone lets nobody wait for so long."""
    run_times = RunTimes()
    run_times.learn("new", 3_500.0, 3_700.0)
    least = policy("a", "b", run_times=run_times)
    least.add("c", since(0.0, kind="new"), now=0.0)

    order = []
    for now in range(10, 50):
        if least.available_at() <= now:
            order.append(key := least.take(now=float(now)))
            least.looked(key, RUNNING, now=float(now))

    assert "c" in order[:6]


def test_job_older_than_nearly_all_of_its_kind_is_looked_at_as_often_as_in_turn() -> None:
    """It may hang, or end any time; the kind no longer says which."""
    least = policy(run_times=known(short=20.0))
    history = JobHistory(kind="short", submitted_at=-5_000.0, running_at=-5_000.0, seen_at=0.0)
    least.add("old", history, now=0.0)
    for number in range(4):
        least.add(number, since(0.0), now=0.0)

    first = [least.take(now=10.0 + number) for number in range(5)]

    assert "old" in first[:2]


@pytest.mark.parametrize(
    ("kind", "now", "reason"),
    [
        ("unknown", 1.9, LookReason.SPARE),
        ("unknown", 2.1, LookReason.PRICE),
        ("long", 10.5, LookReason.SPARE),
        ("long", 11.0, LookReason.PRICE),
    ],
)
def test_job_of_a_kind_that_is_known_well_may_wait_for_five_rounds_and_a_stranger_for_one(
    kind: str, now: float, reason: LookReason
) -> None:
    """Ten jobs, and a look every fifth of a second, as it is thought at first."""
    guess = known(long=3_600.0).of("long")
    run_times = known(long=3_600.0) if kind == "long" else RunTimes(guess=guess)
    least = policy(run_times=run_times, interval=1.0)
    for number in range(9):
        least.add(number, since(1_000.0, kind=kind), now=1_000.0)
    least.add("a", since(1_000.0, kind=kind), now=1_000.0)
    for number in range(9):
        least.discard(number)

    least.take(now=1_000.0 + now)

    assert least.looks == {reason: 1}


def test_a_round_takes_as_long_as_looks_take() -> None:
    """Jobs that take an hour, and are known well, may wait for five rounds.

    These are taken to be quick at first. Where each look takes four seconds, nobody has waited for five of them.
    """
    least = policy(run_times=known(long=3_600.0), interval=5.0, floor=1e6)
    for number in range(50):
        least.add(number, since(0.0, kind="long"), now=0.0)

    for number in range(300):
        now = 100.0 + 4.0 * number
        least.looked(least.take(now=now), RUNNING, now=now)
        if number == 0:
            assert least.looks == {LookReason.PRICE: 1}
            least.looks.clear()

    assert least.looks[LookReason.SPARE] > 200


def test_calls_that_nobody_needs_are_made_all_the_same() -> None:
    """The budget is there: a look now may still find an end that nobody expects."""
    least = policy(run_times=known(long=3_000.0))
    least.add("a", since(0.0, kind="long", running=False), now=0.0)

    assert least.take(now=10.0) == "a"

    assert least.looks == {LookReason.SPARE: 1}


def test_price_rises_while_jobs_are_worth_more_than_it() -> None:
    """Far more jobs than looks: not all that would be worth a second of delay can be looked at."""
    least = policy(*map(str, range(500)), run_times=known(**{KIND: 30.0}))
    first_price = least.price

    for now in range(30, 130):
        least.looked(least.take(now=float(now)), RUNNING, now=float(now))

    assert first_price == 1.0
    assert least.price > 5.0
    assert least.looks[LookReason.PRICE] > 80


def test_price_falls_while_looks_are_plenty() -> None:
    """One job and a call for it every ten seconds: hardly any delay is too little for a look."""
    least = policy("a", run_times=known(**{KIND: 3_000.0}))

    for _ in range(100):
        now = least.available_at()
        least.looked(least.take(now=now), look("WAITING"), now=now)

    assert 1e-4 <= least.price < 0.1


def test_job_put_in_line_when_looks_were_cheap_does_not_come_before_one_that_is_worth_more_now() -> None:
    """The price has risen since; what was due by the old one waits until it is due by the new one."""
    run_times = known(short=20.0, long=300.0)
    least = policy(run_times=run_times, interval=1.0, floor=1e6)
    for number in range(40):
        least.add(f"long {number}", since(0.0, kind="long"), now=0.0)
    assert least.take(now=1.0) == "long 0"
    for number in range(400):
        least.add(number, since(0.0, kind="short"), now=0.0)
    for number in range(400):
        least.looked(least.take(now=25.0 + number / 4), None, now=25.0 + number / 4)

    taken = [least.take(now=180.0 + number) for number in range(60)]

    assert least.price > 10.0
    assert sum(isinstance(key, int) for key in taken) > 50


def test_ended_job_that_is_not_let_go_yet_waits_behind_all_others() -> None:
    """Its owner is still writing the end down; it is looked at again only where a look is to spare."""
    least = policy("a", "b", "c")
    least.looked(least.take(now=10.0), ENDED, now=10.0)

    assert [least.take(now=50.0), least.take(now=50.0)] == ["b", "c"]
    price = least.price
    assert least.take(now=50.0) == "a"
    assert least.looks[LookReason.SPARE] == 1
    assert least.price == price


def test_delay_estimate_is_told() -> None:
    """For a metric: how long ends go unnoticed."""
    least = policy(run_times=known(**{KIND: 20.0}))
    least.add("a", since(0.0), now=0.0)

    least.looked(least.take(now=30.0), ENDED, now=30.0)

    assert 8.0 < least.delay_estimate < 12.0


# ---- the floor


def test_silent_job_is_looked_at_although_nothing_is_expected_of_it() -> None:
    """Ninety jobs are in a hurry, again and again; one of eight looks is kept for the silent one."""
    least = policy("silent", run_times=known(**{KIND: 3_000.0}))
    for number in range(90):
        least.add(number, since(70.0), now=70.0)
        least.hurry(number, now=70.0)

    taken = [least.take(now=70.0 + number / 10) for number in range(9)]

    assert taken.index("silent") == SILENCE_TURNS - 1
    assert least.looks == {LookReason.HURRY: 8, LookReason.SILENCE: 1}


def test_silence_that_has_lasted_just_as_long_is_too_long() -> None:
    least = policy("silent", now=0.0, run_times=known(**{KIND: 3_000.0}))
    for number in range(20):
        least.add(number, since(FLOOR), now=FLOOR)
        least.hurry(number, now=FLOOR)

    assert [least.take(now=FLOOR) for _ in range(SILENCE_TURNS)][-1] == "silent"


def test_look_that_goes_to_the_silent_is_not_spent_while_nobody_is_silent_for_too_long() -> None:
    least = policy(*map(str, range(100)))

    for number in range(20):
        least.looked(least.take(now=20.0 + number), RUNNING, now=20.0 + number)

    assert least.looks[LookReason.SILENCE] == 0


def test_floor_below_the_interval_looks_no_more_often_than_the_interval() -> None:
    least = policy("a", floor=1.0)
    for _ in range(20):
        now = least.available_at()
        least.looked(least.take(now=now), RUNNING, now=now)

        assert least.available_at() - now == INTERVAL


class Model:
    """Drives a policy and knows, by simple rules, which jobs may be offered and which must be.

    The bound of the floor: of the jobs that are silent for too long, the one that is n-th in line, by when it was last
    seen or added, is among the next 8 n that are taken, whatever happens to the others.
    """

    def __init__(self) -> None:
        self.least = LeastDelay(RunTimes(), RunTimes(), interval=INTERVAL, max_silence=FLOOR)
        self.now = 1_000.0
        self.free_at: dict[Hashable, float] = {}
        self.silent_since: dict[Hashable, float] = {}
        self.misses: dict[Hashable, int] = {}
        self.under_look: set[Hashable] = set()
        self.hurried_look: set[Hashable] = set()
        self.hurried: set[Hashable] = set()
        self.takes_left: dict[Hashable, int] = {}

    def add(self, key: Hashable, seen_at: float) -> None:
        history = JobHistory(kind=KIND, submitted_at=seen_at - 5.0, seen_at=seen_at)
        self.least.add(key, history, now=self.now)
        if key not in self.misses:
            self.misses[key] = 0
            self._stand(key, max(self.now, min(seen_at, self.now) + INTERVAL))

    def discard(self, key: Hashable) -> None:
        self.least.discard(key)
        self._forget(key)
        self.misses.pop(key, None)
        self.under_look.discard(key)
        self.hurried.discard(key)

    def hurry(self, key: Hashable) -> None:
        self.least.hurry(key, now=self.now)
        if key in self.misses:
            self.hurried.add(key)
        if key in self.free_at:
            self.free_at[key] = min(self.free_at[key], self.now)

    def take(self) -> Hashable | None:
        """Take a job if one is free; it must be a free one, and nobody may have waited for too long."""
        self._check_who_is_free()
        if not any(at <= self.now for at in self.free_at.values()):
            return None
        self._grant_turns()
        key = self.least.take(now=self.now)
        assert key not in self.under_look
        assert self.free_at[key] <= self.now
        self.under_look.add(key)
        if key in self.hurried:
            self.hurried_look.add(key)
        self.hurried.discard(key)
        self._forget(key)
        for other in self.takes_left:
            self.takes_left[other] -= 1
        assert all(left > 0 for left in self.takes_left.values()), "a job is silent for longer than the floor allows"
        return key

    def looked(self, key: Hashable, view: JobView | None) -> None:
        self.least.looked(key, view, now=self.now)
        if key not in self.under_look:
            return
        self.under_look.discard(key)
        self.misses[key] = self.misses[key] + 1 if view is None else 0
        pause = min(INTERVAL * 2 ** self.misses[key], FLOOR)
        if view is ENDED:
            self.hurried.discard(key)
        if key in self.hurried:
            pause = 0.0
        elif key in self.hurried_look and view is None:
            self.hurried.add(key)
        self.hurried_look.discard(key)
        self._stand(key, self.now + pause)

    def _stand(self, key: Hashable, free_at: float) -> None:
        self.free_at[key] = free_at
        self.silent_since[key] = self.now

    def _forget(self, key: Hashable) -> None:
        for known_of in (self.free_at, self.silent_since, self.takes_left):
            known_of.pop(key, None)

    def _grant_turns(self) -> None:
        """Those that are silent for too long by now have so many looks left until it is their turn."""
        for place, (key, at) in enumerate(self.silent_since.items(), start=1):
            if self.now - at >= FLOOR:
                self.takes_left.setdefault(key, SILENCE_TURNS * place)

    def _check_who_is_free(self) -> None:
        assert len(self.least) == len(self.misses)
        first = min(self.free_at.values(), default=NEVER)
        assert self.least.available_at() <= first
        assert first <= max(self.least.available_at(), self.now)


VIEWS = (None, RUNNING, look("WAITING", rank=3), look("WAITING", rank=0), look("RUNNING", progress=0.5), ENDED)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "hurry", "take", "take", "answer", "look", "look"]),
        st.sampled_from("abcde"),
        st.sampled_from(VIEWS),
        st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, 70.0]),
    ),
    max_size=60,
)


def drive(model: Model, step: str, key: str, view: JobView | None, pause: float) -> None:
    """Let one thing happen after a pause."""
    model.now += pause
    match step:
        case "add":
            model.add(key, model.now - 2 * pause)
        case "discard":
            model.discard(key)
        case "hurry":
            model.hurry(key)
        case "take":
            model.take()
        case "answer":
            model.looked(key, view)
        case _:
            taken = model.take()
            if taken is not None:
                model.looked(taken, view)


@given(STEPS)
@settings(max_examples=200)
def test_whatever_happens_only_free_jobs_are_offered_and_nobody_is_forgotten(
    steps: list[tuple[str, str, JobView | None, float]],
) -> None:
    """Not under look, not before their interval, and not later than the floor allows."""
    model = Model()
    for step, key, view, pause in steps:
        drive(model, step, key, view, pause)


@given(seed=st.integers(0, 2**32), jobs=st.integers(2, 40), hurry=st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=20)
def test_nobody_is_silent_for_longer_than_the_floor_allows_however_busy_the_others_are(
    seed: int, jobs: int, hurry: float
) -> None:
    """Many jobs, too few looks for the floor to hold for all, and often somebody who is in a hurry."""
    chance, model = Random(seed), Model()
    for number in range(jobs):
        model.add(number, model.now - chance.uniform(0.0, 100.0))
    for _ in range(300):
        model.now += chance.expovariate(0.2)
        if chance.random() < hurry:
            model.hurry(chance.randrange(jobs))
        key = model.take()
        if key is not None:
            model.looked(key, chance.choice(VIEWS))
        if chance.random() < 0.05:
            key = chance.randrange(jobs)
            model.discard(key)
            model.add(key, model.now)

    looks = model.least.looks
    assert looks[LookReason.SILENCE] > 10 or jobs < 20
    assert SILENCE_TURNS * looks[LookReason.SILENCE] <= looks.total()


# ---- what comes of it


@pytest.mark.parametrize("seen_at", [float("nan"), inf, -inf, 1e300])
def test_times_that_cannot_be_put_nobody_off_for_ever(seen_at: float) -> None:
    """The wall clock has stepped, or a record is damaged: the job is looked at like a new one, at the latest."""
    least = policy()

    least.add("a", JobHistory(kind=KIND, submitted_at=seen_at, seen_at=seen_at, running_at=seen_at), now=50.0)

    assert least.available_at() <= 60.0
    least.looked(least.take(now=60.0), RUNNING, now=60.0)
    assert least.available_at() == 70.0


def test_clock_that_stands_still_or_steps_back_stops_nobody() -> None:
    """A monotonic clock does neither, but nothing hangs on that."""
    least = policy("a", "b", now=100.0)

    for now in (110.0, 110.0, 105.0, 121.0, 90.0):
        while least.available_at() <= now:
            least.looked(least.take(now=now), RUNNING, now=now)

    assert least.available_at() <= 131.0


class InTurn:
    """Implements `PollPolicy` by looking at everybody in turn."""

    def __init__(self) -> None:
        self._line = deque[tuple[float, Hashable]]()
        self._gone = set[Hashable]()

    def __len__(self) -> int:
        return len(self._line) - len(self._gone)

    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        self._line.append((max(now, history.seen_at + 1.0), key))

    def discard(self, key: Hashable) -> None:
        self._gone.add(key)

    def hurry(self, key: Hashable, *, now: float) -> None:
        raise NotImplementedError

    def available_at(self) -> float:
        while self._line and self._line[0][1] in self._gone:
            self._line.popleft()
        return self._line[0][0] if self._line else NEVER

    def take(self, *, now: float) -> Hashable:
        assert now >= self.available_at()
        return self._line.popleft()[1]

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        assert view is not None
        self._line.append((now + 1.0, key))


def mean_delay(policy: PollPolicy, *, minutes: int = 12) -> float:
    """Of the ends after some minutes, where a job of one of three kinds comes each second, and four looks are made."""
    chance, delays, ends = Random(1), list[float](), dict[Hashable, float]()
    for slot in range(minutes * 240):
        now = slot / 4
        if slot % 4 == 0:
            kind, median = chance.choice((("short", 8.0), ("middle", 25.0), ("long", 90.0)))
            ends[slot] = now + chance.lognormvariate(log(median), 0.3)
            policy.add(slot, since(now, kind=kind, running=False), now=now)
        if policy.available_at() <= now:
            key = policy.take(now=now)
            policy.looked(key, ENDED if ends[key] <= now else RUNNING, now=now)
            if ends[key] <= now:
                policy.discard(key)
                if now > 240.0:
                    delays.append(now - ends[key])
    return sum(delays) / len(delays)


def test_ends_are_seen_in_less_than_half_the_time_that_looks_in_turn_take() -> None:
    """From a cold start, with the same looks: that is what all this is for; `bench/polling.py` has the whole table."""
    least = policy(interval=1.0)

    ours, in_turn = mean_delay(least), mean_delay(InTurn())

    assert ours < 0.5 * in_turn
    assert least.delay_estimate == pytest.approx(ours, rel=0.4)
