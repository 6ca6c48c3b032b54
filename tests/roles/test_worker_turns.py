"""Whose turn it is to be submitted: priorities among the jobs that wait, and the cap on those TAMS holds."""

from datetime import timedelta

from bridge.messages import Failure, TryLater
from tests.roles.conftest import MakeWorld, Options, World

TOO_MANY = TryLater(Failure(code="resource_exhausted", message="too many jobs", retryable=True), None, throttled=True)


def submitted(world: World) -> list[str]:
    """Requests in the order TAMS took them."""
    return [event.request_id for event in world.ledgers.events if event.type.endswith("submitted")]


async def full_world(make_world: MakeWorld) -> World:
    """A world whose one place at TAMS is taken."""
    world = await make_world(Options(max_in_flight=1))
    await world.request("first")
    return world


async def end_one_after_the_other(world: World, count: int) -> None:
    for _ in range(count):
        world.tams.end_all()
        await world.clock.advance(1.5)


async def test_of_the_jobs_that_wait_the_one_of_the_highest_priority_goes_first(make_world: MakeWorld) -> None:
    world = await full_world(make_world)
    for name, priority in [("low", 0), ("normal", None), ("high", 9)]:
        await world.request(name, priority=priority)

    await end_one_after_the_other(world, 3)

    assert submitted(world) == ["first", "high", "normal", "low"]


async def test_within_a_priority_jobs_go_in_the_order_they_came(make_world: MakeWorld) -> None:
    world = await full_world(make_world)
    for name in ("b", "a", "c"):
        await world.request(name, priority=7)
        await world.clock.advance(0.01)

    await end_one_after_the_other(world, 3)

    assert submitted(world) == ["first", "b", "a", "c"]


async def test_a_job_of_low_priority_is_not_overtaken_for_ever(make_world: MakeWorld) -> None:
    """Each step of priority is worth a minute of waiting."""
    world = await full_world(make_world)
    await world.request("low", priority=3)
    await world.clock.advance(59.0)
    await world.request("in time", priority=4)
    await world.clock.advance(2.0)
    await world.request("too late", priority=4)

    await end_one_after_the_other(world, 3)

    assert submitted(world) == ["first", "in time", "low", "too late"]


async def test_a_job_put_back_keeps_its_priority(make_world: MakeWorld) -> None:
    """Its submit could not be sent, and it waits for its time."""
    world = await full_world(make_world)
    await world.request("high", priority=9)
    world.tams.answers["create"].append(TryLater(TOO_MANY.failure, timedelta(seconds=3), throttled=False))
    world.tams.end_all()
    await world.clock.advance(1.0)
    await world.request("normal")

    await end_one_after_the_other(world, 6)

    assert submitted(world) == ["first", "high", "normal"]


async def test_creates_refused_while_looks_get_through_are_not_repeated_before_a_job_has_ended(
    make_world: MakeWorld,
) -> None:
    """TAMS holds as many of our jobs as it takes: asking again would use up the rate for nothing."""
    world = await make_world(Options())
    await world.request("a")
    await world.request("b")
    world.tams.answers["create"].extend([TOO_MANY] * 3)
    await world.request("c")
    while world.tams.answers["create"]:
        await world.clock.advance(0.5)
    creates = len(world.tams.of("create"))
    assert creates == 5

    await world.clock.advance(9.0)
    assert len(world.tams.of("create")) == creates

    world.tams.end_all()
    await world.clock.advance(2.0)
    assert submitted(world) == ["a", "b", "c"]
