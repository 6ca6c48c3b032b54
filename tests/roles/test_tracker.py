"""Whom the tracker looks at and cancels, without an owner's help."""

from bridge.messages import Answer, Done
from tests.roles.conftest import MakeWorld, Options


class Owner:
    """Implements `bridge.tracker.TrackOwner`: writes down what it is told."""

    number = 7

    def __init__(self) -> None:
        self.told: list[tuple[str, Answer]] = []

    def looked(self, request_id: str, job_id: str, answer: Answer) -> None:
        self.told.append((f"{request_id} {job_id}", answer))

    def cancel_answered(self, request_id: str, job_id: str, answer: Answer) -> None:
        self.told.append((f"{request_id} {job_id}", answer))


async def test_a_cancel_that_tams_has_answered_is_not_sent_again_while_the_answer_is_being_written_down(
    make_world: MakeWorld,
) -> None:
    """Until then the owner may ask for it again, with every other change of the job."""
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    await world.tams.create("r", b"{}")
    tracker.track(owner, "a", "job-1")
    tracker.cancel(owner, "a")
    world.upstream.reserve()
    await tracker.cancel_next()

    tracker.cancel(owner, "a")

    assert owner.told == [("a job-1", Done())]
    assert not tracker.has_cancel()


async def test_a_job_tracked_anew_may_be_canceled_anew(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    tracker.track(owner, "a", "job-1")
    tracker.cancel(owner, "a")
    tracker.drop(owner, "a")
    assert not tracker.has_cancel()

    tracker.track(owner, "a", "job-2")
    tracker.cancel(owner, "a")

    assert tracker.has_cancel()


async def test_a_job_dropped_while_tams_is_asked_to_cancel_it_is_told_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    owner, tracker = Owner(), world.tracker
    tracker.track(owner, "a", "job-1")
    tracker.cancel(owner, "a")
    world.upstream.reserve()
    cancel = tracker.cancel_next()
    tracker.drop(owner, "a")
    tracker.track(owner, "b", "job-2")

    tracker.drop_all(owner)

    assert len(tracker) == 0
    cancel.close()
    world.upstream.release()
