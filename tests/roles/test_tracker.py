"""Whom the tracker looks at and cancels, without an owner's help."""

from collections.abc import Hashable
from datetime import timedelta

from msgspec.structs import replace
from typing_extensions import override

from bridge.core.polling import JobHistory, LeastDelay
from bridge.core.run_times import RunTimes
from bridge.messages import Answer, Done, JobRecord, Phase
from bridge.tracker import Tracker
from tests.roles.conftest import MakeWorld, Options
from tests.roles.fakes import MONOTONIC_START, START


class Owner:
    """Implements `bridge.tracker.TrackOwner`: writes down what it is told."""

    number = 7

    def __init__(self) -> None:
        self.told: list[tuple[str, Answer]] = []

    def looked(self, request_id: str, job_id: str, answer: Answer) -> None:
        self.told.append((f"{request_id} {job_id}", answer))

    def cancel_answered(self, request_id: str, job_id: str, answer: Answer) -> None:
        self.told.append((f"{request_id} {job_id}", answer))


def job(request_id: str) -> JobRecord:
    """A job that TAMS holds."""
    return JobRecord(request_id=request_id, phase=Phase.TRACKING, accepted_at=START)


async def test_a_cancel_that_tams_has_answered_is_not_sent_again_while_the_answer_is_being_written_down(
    make_world: MakeWorld,
) -> None:
    """Until then the owner may ask for it again, with every other change of the job."""
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    await world.tams.create("r", b"{}")
    tracker.track(owner, "job-1", job("a"))
    tracker.cancel(owner, "a")
    world.upstream.reserve()
    await tracker.cancel_next()

    tracker.cancel(owner, "a")

    assert owner.told == [("a job-1", Done())]
    assert not tracker.has_cancel()


async def test_a_job_tracked_anew_may_be_canceled_anew(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    tracker.track(owner, "job-1", job("a"))
    tracker.cancel(owner, "a")
    tracker.drop(owner, "a")
    assert not tracker.has_cancel()

    tracker.track(owner, "job-2", job("a"))
    tracker.cancel(owner, "a")

    assert tracker.has_cancel()


async def test_a_job_dropped_while_tams_is_asked_to_cancel_it_is_told_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    tracker.track(owner, "job-1", job("a"))
    tracker.cancel(owner, "a")
    world.upstream.reserve()
    cancel = tracker.cancel_next()
    tracker.drop(owner, "a")
    tracker.track(owner, "job-2", job("b"))

    tracker.drop_all(owner)

    assert len(tracker) == 0
    cancel.close()
    world.upstream.release()


async def test_a_job_that_ends_right_before_its_cancel_is_sent_ends_nothing_else(make_world: MakeWorld) -> None:
    """The cancel was due and its task made, but it had not begun to run."""
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    await world.tams.create("r", b"{}")
    tracker.track(owner, "job-1", job("a"))
    tracker.cancel(owner, "a")
    world.upstream.reserve()
    cancel = tracker.cancel_next()

    tracker.drop(owner, "a")
    await cancel

    assert owner.told == []
    assert not tracker.has_cancel()


class Introduced(LeastDelay):
    """Writes down what it is told of the jobs it is given."""

    def __init__(self) -> None:
        super().__init__(RunTimes(), RunTimes(), interval=1.0, max_silence=60.0)
        self.histories: list[JobHistory] = []

    @override
    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        self.histories.append(history)
        super().add(key, history, now=now)


async def test_a_restored_job_is_as_old_as_it_was(make_world: MakeWorld) -> None:
    """Its age decides when to look, and a restart does not make it young; this process has its own clock."""
    world, policy = await make_world(Options()), Introduced()
    await world.clock.advance(100.0)
    tracker = Tracker(world.upstream, policy=policy, clock=world.clock)
    known = JobRecord(
        request_id="a",
        phase=Phase.TRACKING,
        accepted_at=START,
        kind="k/k",
        submitted_at=START + timedelta(seconds=40),
        running_at=START + timedelta(seconds=60),
        seen_at=START + timedelta(seconds=70),
        progress=0.5,
    )

    tracker.track(Owner(), "job-1", known)

    at = MONOTONIC_START
    expected = JobHistory(kind="k/k", submitted_at=at + 40, seen_at=at + 70, running_at=at + 60, progress=0.5)
    assert policy.histories == [expected]


async def test_a_job_of_an_older_ledger_is_as_old_as_its_request(make_world: MakeWorld) -> None:
    """Its record tells no more; the wall clock may even have gone back since."""
    world, policy = await make_world(Options()), Introduced()
    tracker = Tracker(world.upstream, policy=policy, clock=world.clock)

    tracker.track(Owner(), "job-1", replace(job("a"), accepted_at=START + timedelta(seconds=9)))

    now = world.clock.monotonic()
    assert policy.histories == [JobHistory(kind="", submitted_at=now, seen_at=now)]


async def test_a_job_under_another_id_at_tams_is_another_job(make_world: MakeWorld) -> None:
    world, policy = await make_world(Options()), Introduced()
    tracker = Tracker(world.upstream, policy=policy, clock=world.clock)

    for job_id in ("job-1", "job-1", "job-2"):
        tracker.track(Owner(), job_id, job("a"))

    assert (len(policy.histories), len(tracker)) == (2, 1)


async def test_jobs_of_a_partition_that_comes_back_are_as_silent_as_they_were(make_world: MakeWorld) -> None:
    """When a worker dies, the others close and open all of theirs; then the jobs of the dead one come first."""
    world, policy = await make_world(Options()), Introduced()
    owner, tracker = Owner(), Tracker(world.upstream, policy=policy, clock=world.clock)
    await world.tams.create("r", b"{}")
    for number in (1, 2):
        tracker.track(owner, f"job-{number}", job(f"a{number}"))
    await world.clock.advance(10.0)
    for _ in range(2):
        world.upstream.reserve()
        await tracker.look_next()  # TAMS knows one of the two
    await world.clock.advance(5.0)

    tracker.drop_all(owner)
    for number in (1, 2, 3):
        tracker.track(owner, f"job-{number}", job(f"a{number}"))

    assert [history.seen_at - MONOTONIC_START for history in policy.histories[2:]] == [10.0, 0.0, 0.0]


async def test_what_was_seen_of_another_job_is_not_taken_for_it(make_world: MakeWorld) -> None:
    """A further attempt of the request meanwhile, or a request of another partition."""
    world, policy = await make_world(Options()), Introduced()
    owner, other = Owner(), Owner()
    other.number = 8
    tracker = Tracker(world.upstream, policy=policy, clock=world.clock)
    await world.tams.create("r", b"{}")
    tracker.track(owner, "job-1", job("a"))
    await world.clock.advance(10.0)
    world.upstream.reserve()
    await tracker.look_next()

    tracker.drop_all(owner)
    tracker.track(owner, "job-2", job("a"))
    tracker.track(other, "job-1", job("a"))

    assert [history.seen_at - MONOTONIC_START for history in policy.histories[1:]] == [0.0, 0.0]
