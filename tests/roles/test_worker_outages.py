"""What a TAMS that is away, asks for patience or refuses one thing for ever does to the rest, in a world in memory."""

import gc
import tracemalloc
from datetime import timedelta

from bridge.core.partition import Submit
from bridge.messages import Ambiguous, Failure, TryLater
from tests.roles.conftest import MakeWorld, Options
from tests.roles.fakes import START

BROKEN = Failure(code="http_500", message="TAMS answered 500", retryable=True, http_status=500)
OVERLOADED = Failure(code="http_503", message="TAMS answered 503", retryable=True, http_status=503)


class Owner:
    """Implements `bridge.submitter.SubmitOwner`; nobody's turn comes."""

    number = 7

    def granted(self, request_id: str) -> None:
        raise AssertionError(request_id)

    def submitted(self, request_id: str, attempt: int, answer: object) -> None:
        raise AssertionError(request_id, attempt, answer)


async def test_a_tams_that_asks_for_patience_for_an_hour_is_only_probed_and_health_says_so(
    make_world: MakeWorld,
) -> None:
    """Though it never wants more than a second of it: 503 is no more of an answer with `Retry-After` than without."""
    world = await make_world(Options())
    later = TryLater(OVERLOADED, timedelta(seconds=1), throttled=False)
    for kind in ("create", "look"):
        world.tams.answers[kind].extend([later] * 10_000)
    for number in range(5):
        await world.request(f"r{number}")

    await world.clock.advance(3600.0)
    calls, health = len(world.tams.calls), world.upstream.health()
    for answers in world.tams.answers.values():
        answers.clear()
    await world.clock.advance(90.0)

    assert calls < 400
    assert (health.reachable, health.problem) == (False, "TAMS answered 503")
    assert world.told.states == ["unreachable", "reachable"]
    for number in range(5):
        assert world.ledgers.types(f"r{number}") == ["accepted", "submitted"]


async def test_a_tams_that_asks_for_patience_once_is_left_alone_for_as_long_and_no_longer(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options())
    world.tams.answers["create"].append(TryLater(OVERLOADED, timedelta(seconds=7), throttled=False))

    await world.request("a")
    await world.clock.advance(6.5)
    assert len(world.tams.calls) == 1
    assert world.upstream.health().reachable

    await world.clock.advance(1.5)
    assert world.ledgers.types("a")[:2] == ["accepted", "submitted"]


async def test_a_cancel_that_tams_never_takes_does_not_hold_up_the_other_jobs(make_world: MakeWorld) -> None:
    """It would be all that is ever asked: cancels go first, and every probe would be this one."""
    world = await make_world(Options(rate=5.0))
    world.tams.answers["cancel"].extend([Ambiguous(BROKEN)] * 10_000)
    await world.request("stubborn")
    await world.cancel("stubborn")
    await world.clock.advance(60.0)

    await world.request("other")
    await world.clock.advance(120.0)
    world.tams.end("job-2")
    await world.clock.advance(120.0)

    assert world.ledgers.types("other")[-1] == "success"
    assert 3 < len(world.tams.of("cancel")) < 60


async def test_jobs_that_no_longer_wait_leave_nothing_behind_while_another_stays_first_in_line(
    make_world: MakeWorld,
) -> None:
    """While TAMS is away jobs come, expire or are given up, for hours: memory must not remember them."""
    world = await make_world(Options())
    owner, submitter = Owner(), world.submitter
    later = START + timedelta(hours=1)
    submitter.offer(owner, Submit("first", START, None))
    submitter.offer(owner, Submit("first-later", START, later))
    tracemalloc.start()
    try:
        for number in range(20_000):
            submitter.offer(owner, Submit(f"r{number}", START, None if number % 2 else later))
            submitter.withdraw(owner, f"r{number}")
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(submitter) == 2
    assert left < 200_000
    submitter.withdraw_all(owner)
