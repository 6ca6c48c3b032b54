from math import inf, log, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.expectations import Expectations, JobHistory, WatchedJob
from bridge.core.run_times import EVERY_KIND, RunTimes
from bridge.messages import NOTHING, JobView

KIND = "sort/exact"
START = 5_000.0
"""When the jobs of these tests are submitted; all other times are ages."""
ODD_FLOATS = st.floats() | st.sampled_from([nan, inf, -inf, 0.0, -1.0, 1e12])
ODD_RANKS = st.none() | st.integers() | st.sampled_from([-1, 10**300])


def look(status: str, *, rank: int | None = None, progress: float = 0.0, nodes: int = 0) -> JobView:
    """What a look shows."""
    return JobView(
        job_id="7",
        status=status,
        queue_rank=rank,
        progress=progress,
        finished_nodes=nodes,
        failure=None,
        document=NOTHING,
    )


class Known:
    """Expectations after jobs that waited and ran for about so long."""

    def __init__(self, *, run_s: float = 20.0, spread: float = 0.2, wait_s: float = 0.5) -> None:
        self.run_times, self.waits, chance = RunTimes(), RunTimes(), Random(1)
        for _ in range(200):
            run_time, wait = chance.lognormvariate(log(run_s), spread), chance.lognormvariate(log(wait_s), 0.2)
            self.run_times.learn(KIND, 0.98 * run_time, 1.02 * run_time)
            self.waits.learn(EVERY_KIND, 0.98 * wait, 1.02 * wait)
        self.expectations = Expectations(self.run_times, self.waits)

    def job(self, *looks: tuple[float, JobView]) -> WatchedJob:
        """A job that was seen like this, at these ages."""
        job = WatchedJob(JobHistory(kind=KIND, submitted_at=START, seen_at=START), now=START)
        for age, view in looks:
            self.expectations.saw(job, view, START + age)
        return job

    def due_at(self, job: WatchedJob, price: float = 1.0) -> float:
        """The age at which a job is due."""
        return self.expectations.due_at(job, price) - START


def median_of(run_times: RunTimes, kind: str = KIND) -> float:
    """By when half of the jobs of a kind are expected to have ended."""
    (median,) = run_times.of(kind).quantiles(0.0, [0.5])
    return median


def ages_to_look(known: Known, *looks: tuple[float, JobView], price: float = 1.0) -> float:
    """How long after its last look such a job is looked at again."""
    return known.due_at(known.job(*looks), price) - looks[-1][0]


def test_job_is_looked_at_when_it_is_expected_to_have_ended() -> None:
    """It runs for about 20 s, and the price of a look is a second of delay."""
    known = Known(run_s=20.0)

    job = known.job((1.0, look("RUNNING")))

    assert 18.0 < known.due_at(job, 1.0) < 23.0


def test_waiting_job_is_looked_at_when_it_is_expected_to_have_waited_and_run() -> None:
    known = Known(run_s=20.0, wait_s=300.0)

    job = known.job((10.0, look("WAITING")))

    assert 270.0 < known.due_at(job, 1.0) < 330.0


def test_longer_queue_lets_a_job_be_looked_at_later() -> None:
    """Both have been seen to move up one place a second."""
    known = Known(run_s=5.0, wait_s=600.0)
    front = known.job((10.0, look("WAITING", rank=60)), (40.0, look("WAITING", rank=30)))
    back = known.job((10.0, look("WAITING", rank=630)), (40.0, look("WAITING", rank=600)))

    assert known.due_at(back, 10.0) > known.due_at(front, 10.0) + 400.0


def test_speed_of_the_queue_is_read_from_ranks() -> None:
    """Sixty places in sixty seconds, besides what was guessed at first."""
    known = Known()

    known.job((10.0, look("WAITING", rank=90)), (40.0, look("WAITING", rank=60)), (70.0, look("WAITING", rank=30)))

    assert known.expectations._queue_speed.ranks_per_s == pytest.approx(1.0, rel=0.1)


def test_job_just_submitted_is_taken_to_wait_behind_the_one_before_it() -> None:
    """Waits learned while the queue was short say nothing of a long one, and the other way round."""
    known = Known(run_s=20.0, wait_s=0.5)
    no_queue = known.due_at(known.job())

    known.job((1.0, look("WAITING", rank=500)))
    long_queue = known.due_at(known.job())
    known.job((1.0, look("RUNNING")))
    emptied_queue = known.due_at(known.job())

    assert long_queue > no_queue + 1.0
    assert no_queue < emptied_queue < long_queue


def test_what_an_older_job_shows_of_the_queue_says_nothing_of_those_after_the_newest() -> None:
    known = Known()
    older = known.job((1.0, look("WAITING", rank=2)))
    newer = WatchedJob(JobHistory(kind=KIND, submitted_at=START + 10.0, seen_at=START + 10.0), now=START + 10.0)
    known.expectations.saw(newer, look("WAITING", rank=500), START + 11.0)
    behind_the_newest = known.due_at(known.job())

    known.expectations.saw(older, look("RUNNING"), START + 11.0)

    assert known.due_at(known.job()) == pytest.approx(behind_the_newest, rel=0.05)


def test_where_no_job_shows_a_rank_none_is_taken_to_have_one() -> None:
    known = Known()
    before = known.due_at(known.job())

    known.job((1.0, look("RUNNING")))

    assert known.expectations._newest_rank is None
    assert known.due_at(known.job()) == pytest.approx(before, abs=0.1)


def test_job_that_has_left_the_queue_tells_of_its_speed_too() -> None:
    """All the places before it have gone, and its own."""
    known = Known()

    known.job((10.0, look("WAITING", rank=99)), (60.0, look("RUNNING")))

    assert known.expectations._queue_speed.ranks_per_s == pytest.approx(101 / 54)


def test_job_that_turns_up_running_has_begun_between_two_looks() -> None:
    """It was waiting at 100 s and running at 110 s, and runs for 20 s: the end is not expected before 120 s."""
    known = Known(run_s=20.0, wait_s=105.0)

    job = known.job((100.0, look("WAITING")), (110.0, look("RUNNING")))

    assert job.running_at is not None
    assert 103.0 < job.running_at - START < 107.0


def test_waits_are_learned_from_jobs_that_turn_up_running() -> None:
    known = Known(wait_s=0.5)

    for _ in range(200):
        known.job((100.0, look("PENDING")), (110.0, look("RUNNING")))

    assert 100.0 < median_of(known.waits, EVERY_KIND) < 110.0


@pytest.mark.parametrize("status", ["CREATED", "PENDING", "WAITING", "DEFAULT"])
def test_job_that_waits_is_not_taken_to_run(status: str) -> None:
    assert Known().job((10.0, look(status))).running_at is None


@pytest.mark.parametrize("status", ["RUNNING", "POSTPROCESSING"])
def test_any_word_nobody_knows_is_taken_for_running(status: str) -> None:
    """TAMS may learn new words for being under way."""
    assert Known().job((10.0, look(status))).running_at is not None


@pytest.mark.parametrize("status", ["SUCCESS", "FAILED"])
def test_run_time_is_learned_between_the_last_look_and_the_one_that_shows_the_end(status: str) -> None:
    """An end is an end, whether or not it is what somebody wished for."""
    known = Known(run_s=20.0, wait_s=0.1)

    for _ in range(200):
        known.job((0.2, look("RUNNING")), (50.0, look("RUNNING")), (60.0, look(status)))

    assert 50.0 < median_of(known.run_times) < 60.0


def test_end_of_a_job_that_was_never_seen_running_is_learned() -> None:
    """What it is thought to have waited is taken off."""
    known = Known(run_s=20.0, wait_s=10.0)

    for _ in range(200):
        known.job((16.0, look("SUCCESS")))

    assert 2.0 < median_of(known.run_times) < 6.5


def test_canceled_job_teaches_nothing() -> None:
    """It would have gone on."""
    known = Known(run_s=20.0)

    job = known.job((1.0, look("RUNNING")), (2.0, look("CANCELED")))

    assert job.ended
    assert known.expectations.delay_estimate == 0.0
    assert known.run_times.evidence(KIND) == Known().run_times.evidence(KIND)


def test_end_that_is_seen_twice_is_learned_once() -> None:
    """An owner may take long to let a job go; its run has not become longer by that."""
    once, twice = Known(), Known()
    once.job((1.0, look("RUNNING")), (30.0, look("SUCCESS")))

    twice.job((1.0, look("RUNNING")), (30.0, look("SUCCESS")), (500.0, look("SUCCESS")))

    assert twice.run_times.export(KIND) == once.run_times.export(KIND)


def test_job_that_waits_again_begins_anew() -> None:
    """TAMS has put it back into its queue: neither age nor progress of the first run count."""
    known = Known(run_s=20.0)
    again = known.job((1.0, look("RUNNING", progress=0.9)), (15.0, look("WAITING")), (16.0, look("RUNNING")))

    assert known.due_at(again, 1.0) > 32.0


def test_signs_of_a_run_that_tams_has_given_up_teach_nothing() -> None:
    """They were seen at another age."""
    known = Known()

    known.job(
        (1.0, look("RUNNING", progress=0.5)),
        (15.0, look("WAITING")),
        (16.0, look("RUNNING")),
        (40.0, look("SUCCESS")),
    )

    assert known.run_times.export(KIND).progress == {}


def test_job_taken_over_from_another_process_keeps_its_age() -> None:
    known = Known(run_s=20.0)
    history = JobHistory(kind=KIND, submitted_at=START, seen_at=START + 12.0, running_at=START + 5.0)

    job = WatchedJob(history, now=START + 18.0)

    assert job.running_for == 7.0
    assert 22.0 < known.due_at(job, 1.0) < 27.0


def test_progress_tells_a_slow_job_from_a_fast_one() -> None:
    """Half of the work in the same time as a tenth."""
    known = Known(run_s=20.0)

    fast = ages_to_look(known, (1.0, look("RUNNING")), (10.0, look("RUNNING", progress=0.5)))
    slow = ages_to_look(known, (1.0, look("RUNNING")), (10.0, look("RUNNING", progress=0.3)))

    assert fast + 2.0 < slow


def test_progress_counts_from_when_it_was_first_seen() -> None:
    """It has not moved since: the second look tells nothing new, and does not make the job look slower."""
    known = Known(run_s=20.0)

    once = known.job((10.0, look("RUNNING", progress=0.5, nodes=2)))
    twice = known.job(*((age, look("RUNNING", progress=0.5, nodes=2)) for age in (10.0, 14.0)))

    assert (twice.hint, twice.sightings) == (once.hint, once.sightings)


def test_progress_that_falls_is_news() -> None:
    """TAMS may count by the hundred: what looked like the whole at first was one of them."""
    known = Known(run_s=20.0, spread=1.0)

    at_first = ages_to_look(known, (1.0, look("RUNNING")), (5.0, look("RUNNING", progress=1.0)))
    later = ages_to_look(
        known, (1.0, look("RUNNING")), (5.0, look("RUNNING", progress=1.0)), (6.0, look("RUNNING", progress=0.2))
    )

    assert later > at_first + 5.0


def test_finished_nodes_tell_the_end_once_some_jobs_have_shown_what_they_mean() -> None:
    """The third node is always done when half of the time has passed."""
    known, chance = Known(run_s=40.0), Random(1)
    for _ in range(100):
        run_time = chance.lognormvariate(log(40.0), 0.6)
        known.job(
            (0.1, look("RUNNING")),
            (0.5 + 0.5 * run_time, look("RUNNING", nodes=3)),
            (0.5 + run_time, look("SUCCESS")),
        )

    fast = known.due_at(known.job((0.1, look("RUNNING")), (10.5, look("RUNNING", nodes=3))), 2.0)
    slow = known.due_at(known.job((0.1, look("RUNNING")), (25.5, look("RUNNING", nodes=3))), 2.0)

    assert 18.0 < fast < 25.0
    assert 36.0 < slow < 56.0


def test_vague_sign_does_not_replace_a_sharp_one() -> None:
    """Progress tells the end exactly; how many nodes are done by then says little."""
    known, chance = Known(run_s=40.0), Random(1)
    for _ in range(100):
        run_time = chance.lognormvariate(log(40.0), 0.6)
        known.job(
            (0.1, look("RUNNING")),
            (0.5 + run_time * chance.uniform(0.01, 0.5), look("RUNNING", nodes=3)),
            (0.5 + 0.5 * run_time, look("RUNNING", progress=0.5, nodes=3)),
            (0.5 + run_time, look("SUCCESS")),
        )
    sharp = ((0.1, look("RUNNING")), (10.5, look("RUNNING", progress=0.5)))

    without, with_nodes = known.job(*sharp), known.job(*sharp, (10.6, look("RUNNING", progress=0.5, nodes=3)))

    assert with_nodes.hint == without.hint


def test_job_that_outlasts_its_kind_is_not_judged_by_it() -> None:
    """What is known of jobs of 20 s says nothing of one that is minutes old."""
    known = Known(run_s=20.0)

    usual, overdue = known.job((1.0, look("RUNNING"))), known.job((1.0, look("RUNNING")), (99.0, look("RUNNING")))

    assert known.expectations.evidence(usual) == known.run_times.evidence(KIND) > 50.0
    assert known.expectations.evidence(overdue) == 0.0


@given(
    looks=st.sampled_from(
        [
            (),
            (look("WAITING", rank=5),),
            (look("RUNNING"),),
            (look("RUNNING"), look("RUNNING", progress=0.4)),
        ]
    ),
    pause=st.floats(0.1, 30.0),
    price=st.floats(0.001, 1_000.0),
)
def test_job_is_due_when_its_delay_has_come_to_the_price(
    looks: tuple[JobView, ...], pause: float, price: float
) -> None:
    job = KNOWN.job(*((pause * number, view) for number, view in enumerate(looks, start=1)))

    at = KNOWN.expectations.due_at(job, price)

    assert at >= job.seen_at
    assert KNOWN.expectations.delay(job, at) == pytest.approx(price, rel=0.02)


@given(
    shown=st.sampled_from(["WAITING", "RUNNING"]),
    at=st.floats(0.1, 100.0),
    ages=st.tuples(*[st.floats(0.0, 500.0)] * 2),
)
def test_delay_to_be_expected_grows_with_the_silence(shown: str, at: float, ages: tuple[float, float]) -> None:
    job = KNOWN.job((at, look(shown)))

    early, late = (KNOWN.expectations.delay(job, START + at + age) for age in sorted(ages))

    assert 0.0 <= early <= late + 1e-9


KNOWN = Known()
"""For tests that learn nothing that matters to others."""


def test_delay_estimate_is_the_time_since_the_end_to_be_expected() -> None:
    """Runs of 20 s that were seen going on at 19 s and ended at 30 s have ended about 9 s ago."""
    known = Known(run_s=20.0, wait_s=0.1)
    assert known.expectations.delay_estimate == 0.0

    known.job((0.1, look("RUNNING")), (19.1, look("RUNNING")), (30.1, look("SUCCESS")))

    assert 6.0 < known.expectations.delay_estimate < 9.5


def test_delay_estimate_follows_what_happens() -> None:
    """About the last fifty ends count, and the first is no exception."""
    known = Known(run_s=20.0, wait_s=0.1)
    for _ in range(300):
        known.job((0.1, look("RUNNING")), (19.1, look("RUNNING")), (30.1, look("SUCCESS")))

    for _ in range(300):
        known.job((0.1, look("RUNNING")), (29.1, look("RUNNING")), (30.1, look("SUCCESS")))

    assert 0.0 < known.expectations.delay_estimate < 1.0


@given(
    history=st.builds(
        JobHistory,
        kind=st.just(KIND),
        submitted_at=ODD_FLOATS,
        seen_at=ODD_FLOATS,
        running_at=st.none() | ODD_FLOATS,
        queue_rank=ODD_RANKS,
        progress=ODD_FLOATS,
    ),
    looks=st.lists(
        st.tuples(
            st.floats(-100.0, 1e6),
            st.builds(
                look,
                st.sampled_from(["WAITING", "RUNNING", "SUCCESS", ""]),
                rank=ODD_RANKS,
                progress=ODD_FLOATS,
                nodes=st.integers(-1, 10**6),
            ),
        ),
        max_size=5,
    ),
)
def test_no_history_and_no_look_breaks_anything(history: JobHistory, looks: list[tuple[float, JobView]]) -> None:
    """Clocks step back and forth, records are damaged, and TAMS says what it likes."""
    job, now = WatchedJob(history, now=1_000.0), 1_000.0
    for pause, view in looks:
        now += pause
        KNOWN.expectations.saw(job, view, now)

        assert job.submitted_at <= job.seen_at < inf
        assert job.seen_at <= KNOWN.expectations.due_at(job, 1.0) < inf
        assert 0.0 <= KNOWN.expectations.delay(job, now) < inf
    assert 0.0 <= KNOWN.expectations.delay_estimate < inf
