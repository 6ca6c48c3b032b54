from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from bridge.emulator.gpus import Gpus
from bridge.emulator.graph import Graph, Node
from bridge.emulator.jobs import Job, Order, Status
from bridge.emulator.script import NO_SCRIPT, Outcome

GRAPH = Graph({"1": Node("1", "SaveImage", {})})
ORDER = Order(app="app", request_id="", graph=GRAPH, script=NO_SCRIPT, group="")
LIFE = list(Status)
FINAL = {Status.SUCCESS, Status.FAILED, Status.CANCELED}

outcomes = st.sampled_from(Outcome)
spans = st.floats(0, 50)
plans = st.lists(st.tuples(spans, spans, outcomes, st.none() | st.floats(0, 200)), min_size=1, max_size=8)


def a_job(
    *, queue_s: float = 10, run_s: float = 20, outcome: Outcome = Outcome.SUCCESS, created_at: float = 100
) -> Job:
    ready_at = created_at + queue_s
    return Job(
        id="1",
        order=ORDER,
        outcome=outcome,
        credits=0.8,
        outputs=1,
        created_at=created_at,
        pending_at=min(created_at + 1, ready_at),
        waiting_at=min(created_at + 3, ready_at),
        ready_at=ready_at,
        run_s=run_s,
    )


def placed(job: Job, *, slots: int | None = None, strangers: int = 4) -> Job:
    Gpus(slots).place(job, strangers=strangers)
    return job


def test_a_job_passes_through_every_state() -> None:
    job = placed(a_job())
    seen = [job.status(moment) for moment in (100, 101, 103, 110, 130)]
    assert seen == [Status.CREATED, Status.PENDING, Status.WAITING, Status.RUNNING, Status.SUCCESS]


def test_each_outcome_ends_in_its_state() -> None:
    ends = {outcome: placed(a_job(outcome=outcome)).status(1e9) for outcome in Outcome}
    assert ends == {
        Outcome.SUCCESS: Status.SUCCESS,
        Outcome.TRANSITORY_ERROR: Status.FAILED,
        Outcome.FATAL_ERROR: Status.FAILED,
        Outcome.CANCELED: Status.CANCELED,
        Outcome.HANG: Status.RUNNING,
    }


def test_a_job_without_queue_and_run_time_is_over_at_once() -> None:
    assert placed(a_job(queue_s=0, run_s=0)).status(100) is Status.SUCCESS


def test_the_rank_counts_down_to_zero() -> None:
    job = placed(a_job(), strangers=4)
    assert [job.queue_rank(moment) for moment in (103, 105, 107, 109, 109.9)] == [4, 2, 1, 0, 0]


def test_only_what_succeeds_or_was_begun_is_charged() -> None:
    waiting, running = placed(a_job()), placed(a_job())
    waiting.cancel(105)
    running.cancel(115)
    charged = [
        job.is_charged for job in (placed(a_job()), waiting, running, placed(a_job(outcome=Outcome.FATAL_ERROR)))
    ]
    assert charged == [True, False, True, False]


def test_canceling_what_is_over_changes_nothing() -> None:
    job = placed(a_job())
    assert not job.cancel(130)
    assert job.status(131) is Status.SUCCESS


def test_with_one_slot_a_job_starts_when_the_one_before_ends() -> None:
    gpus = Gpus(1)
    first, second = a_job(), a_job(created_at=101)
    gpus.place(first, strangers=0)
    gpus.place(second, strangers=0)
    assert (first.starts_at, second.starts_at, second.ahead) == (110, 130, 1)


def test_canceling_lets_those_behind_move_up() -> None:
    gpus = Gpus(1)
    hanging, behind = a_job(outcome=Outcome.HANG), a_job()
    gpus.place(hanging, strangers=0)
    gpus.place(behind, strangers=0)
    assert behind.starts_at == inf
    gpus.cancel(hanging, [hanging, behind], 150)
    assert behind.starts_at == 150


def test_more_slots_start_jobs_earlier_and_fewer_wait_for_those_that_run() -> None:
    gpus = Gpus(1)
    jobs = [a_job(), a_job(), a_job()]
    for job in jobs:
        gpus.place(job, strangers=0)
    gpus.replan(jobs, 2, 120)
    assert [job.starts_at for job in jobs] == [110, 120, 130]
    gpus.replan(jobs, 1, 125)
    assert [job.starts_at for job in jobs] == [110, 120, 140]
    gpus.replan(jobs, None, 126)
    assert jobs[2].starts_at == 110


def test_live_and_queued_jobs_are_counted_with_and_without_slots() -> None:
    for slots in (None, 2):
        gpus = Gpus(slots)
        jobs = [a_job(), a_job(), a_job(outcome=Outcome.HANG)]
        for job in jobs:
            gpus.place(job, strangers=0)
        assert gpus.cancel(jobs[0], jobs, 105)
        assert not gpus.cancel(jobs[0], jobs, 106)
        assert (gpus.queue_length(106), gpus.live(106), gpus.queue_length(111), gpus.live(1000)) == (2, 2, 0, 1)


@given(plan=plans, slots=st.none() | st.integers(1, 3), looks=st.lists(st.floats(100, 600), max_size=40))
def test_the_life_of_a_job_never_goes_back(
    plan: list[tuple[float, float, Outcome, float | None]], slots: int | None, looks: list[float]
) -> None:
    """Whatever is canceled: status never goes back, rank never rises, progress never falls, an end is an end."""
    gpus = Gpus(slots)
    jobs = [a_job(queue_s=queue_s, run_s=run_s, outcome=outcome) for queue_s, run_s, outcome, _ in plan]
    for job in jobs:
        gpus.place(job, strangers=2)
    cancels = [(100 + at, job) for job, (*_, at) in zip(jobs, plan, strict=True) if at is not None]
    events: list[tuple[float, Job | None]] = [*cancels, *((moment, None) for moment in looks)]
    seen: dict[int, list[tuple[Status, int, float]]] = {number: [] for number in range(len(jobs))}
    for moment, canceled in sorted(events, key=lambda event: event[0]):
        if canceled:
            gpus.cancel(canceled, jobs, moment)
        for number, job in enumerate(jobs):
            status = job.status(moment)
            rank = job.queue_rank(moment) if status is Status.WAITING else -1 if status in FINAL else 0
            seen[number].append((status, rank, job.progress(moment) if status is Status.RUNNING else 0.0))
    for story in seen.values():
        for (status, rank, progress), (next_status, next_rank, next_progress) in pairwise(story):
            assert LIFE.index(next_status) >= LIFE.index(status)
            assert status not in FINAL or next_status is status
            assert next_status is not status or next_rank <= rank
            assert next_status is not status or next_progress >= progress


@given(st.lists(st.tuples(spans, spans), max_size=20), st.integers(1, 4))
def test_never_more_jobs_run_than_there_are_slots(times: list[tuple[float, float]], slots: int) -> None:
    gpus = Gpus(slots)
    jobs = [a_job(queue_s=queue_s, run_s=run_s) for queue_s, run_s in times]
    for job in jobs:
        gpus.place(job, strangers=0)
    for job in jobs:
        assert sum(other.status(job.starts_at) is Status.RUNNING for other in jobs) <= slots
