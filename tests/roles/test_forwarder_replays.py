"""How many replays are read at once, in a world in memory; what one of them does stands in `test_forwarder`."""

from bridge.webhook_messages import ReplayCancel
from tests.core.webhook_examples import event, replay_order, value_of, with_policy
from tests.roles.forwarder_world import ForwarderWorld, Options, forwarding


def state_of(world: ForwarderWorld, replay_id: str) -> str:
    """Of a replay as committed."""
    replay = world.ledgers.replay(replay_id)
    assert replay is not None
    return replay.state.value


async def test_replays_of_one_endpoint_are_read_one_after_the_other_and_all_in_the_end() -> None:
    """Each reads Kafka by clients of its own: who asks for a hundred must not get a hundred of them."""
    async with forwarding(Options()) as world:
        await world.register("ep_a")
        world.history.topics = {"t.success-0": [value_of(event("old", number)) for number in range(1, 6)]}
        world.history.gate.clear()
        names = [f"rp_{number}" for number in range(20)]
        for name in names:
            world.place(replay_order(name))
        await world.commit()
        assert world.history.reading == 1

        world.history.gate.set()
        await world.clock.advance(5.0)

        assert {state_of(world, name) for name in names} == {"done"}
        assert world.history.asked == names


async def test_a_replay_that_waits_for_room_does_not_hold_up_that_of_another_endpoint() -> None:
    async with forwarding(Options(policy=with_policy(max_pending=8))) as world:
        await world.register("ep_a", paused=True)
        await world.register("ep_b")
        world.history.topics = {"t.success-0": [value_of(event("old", number)) for number in range(1, 21)]}
        world.place(replay_order("rp_a"))
        world.place(replay_order("rp_b", endpoint_id="ep_b"))
        await world.clock.advance(30.0)

        assert (state_of(world, "rp_a"), state_of(world, "rp_b")) == ("running", "done")


async def test_a_replay_that_is_canceled_makes_way_for_the_next() -> None:
    async with forwarding(Options(policy=with_policy(max_pending=8))) as world:
        await world.register("ep_a", paused=True)
        world.history.topics = {"t.success-0": [value_of(event("old", number)) for number in range(1, 21)]}
        world.place(replay_order("rp_1"))
        world.place(replay_order("rp_2"))
        await world.clock.advance(1.0)

        world.place(ReplayCancel(replay_id="rp_1", endpoint_id="ep_a"))
        await world.register("ep_a")
        await world.clock.advance(10.0)

        assert (state_of(world, "rp_1"), state_of(world, "rp_2")) == ("canceled", "done")
