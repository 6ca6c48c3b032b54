"""What a worker orders for webhooks: it is committed with the events, or not at all."""

from typing import Any

import msgspec
import pytest

from bridge.core.fanout import inline_id
from bridge.core.registry import Registry
from bridge.errors import LedgerUnavailable
from bridge.messages import JobEvent
from bridge.webhook_messages import InlineWebhook, Order
from tests.core.webhook_examples import endpoint, put
from tests.roles.conftest import MakeWorld, Options, World

HOOK = "https://inline.example/hook"


def orders(world: World) -> list[tuple[str, str]]:
    """To whom and which event, in the order of the commits."""
    return [(order.endpoint_id, order.event_id) for changes in world.ledgers.commits for order in changes.orders]


async def finished(world: World, request_id: str = "a", **fields: Any) -> None:
    """Let a request run to its success."""
    await world.request(request_id, **fields)
    world.tams.end_all()
    await world.clock.advance(1.0)


def registry_of(*endpoint_ids: str, **fields: object) -> Registry:
    registry = Registry()
    put(registry, *(endpoint(endpoint_id, **fields) for endpoint_id in endpoint_ids))
    return registry


async def test_every_event_is_ordered_for_each_endpoint_that_wants_it_in_the_same_transaction(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options(registry=registry_of("ep_a", "ep_b")))

    await finished(world)

    assert len(world.ledgers.commits) > 1
    for changes in world.ledgers.commits:
        expected = [(receiver, event.id) for event, _ in changes.events for receiver in ("ep_a", "ep_b")]
        assert [(order.endpoint_id, order.event_id) for order in changes.orders] == expected
    assert [name for receiver, name in orders(world) if receiver == "ep_a"] == ["a.1", "a.2", "a.3"]


async def test_an_order_carries_the_event_as_it_is_published(make_world: MakeWorld) -> None:
    world = await make_world(Options(registry=registry_of("ep_a")))

    await finished(world, labels={"tenant": "acme"})

    (order,) = [order for changes in world.ledgers.commits for order in changes.orders if order.sequence == 3]
    end = world.ledgers.events[-1]
    assert msgspec.json.decode(order.event, type=JobEvent) == end
    assert order == Order(
        endpoint_id="ep_a",
        event_id="a.3",
        type="tams.job.success",
        request_id="a",
        sequence=3,
        time=end.time,
        event=order.event,
    )


async def test_only_what_is_wanted_is_ordered(make_world: MakeWorld) -> None:
    registry = registry_of("ep_success", event_types=["tams.job.success"])
    put(registry, endpoint("ep_acme", tenant="acme"), endpoint("ep_gold", labels={"tier": "gold"}))
    world = await make_world(Options(registry=registry))

    await finished(world, labels={"tenant": "other", "tier": "iron"})

    assert orders(world) == [("ep_success", "a.3")]


async def test_an_endpoint_counts_from_the_moment_the_registry_has_it_and_while_it_is_paused(
    make_world: MakeWorld,
) -> None:
    """What is ordered for a paused one is kept for it."""
    world = await make_world(Options())
    await world.request("a")

    put(world.registry, endpoint("ep_a", paused=True))
    world.tams.end_all()
    await world.clock.advance(1.0)

    assert orders(world) == [("ep_a", "a.3")]


async def test_the_webhook_of_a_request_gets_the_events_it_names(make_world: MakeWorld) -> None:
    world = await make_world(Options())

    await finished(world, labels={"tenant": "acme"}, webhook={"url": HOOK, "events": ["submitted", "success"]})
    await finished(world, "b")

    webhook = InlineWebhook(url=HOOK, tenant="acme")
    ordered = [order for changes in world.ledgers.commits for order in changes.orders]
    assert [(order.event_id, order.inline) for order in ordered] == [("a.2", webhook), ("a.3", webhook)]
    assert {order.endpoint_id for order in ordered} == {inline_id(webhook)}


async def test_the_webhook_of_a_request_survives_the_worker(make_world: MakeWorld) -> None:
    """It lies in the ledger with the job."""
    former = await make_world(Options())
    await former.request("a", webhook={"url": HOOK})
    await former.stop()

    latter = await make_world(Options(ledgers=former.ledgers))
    latter.tams.statuses.update(former.tams.statuses)
    latter.tams.end_all()
    await latter.clock.advance(1.0)

    assert orders(latter)[-1] == (inline_id(InlineWebhook(url=HOOK)), "a.3")


@pytest.mark.parametrize("refused", [1, 2])
async def test_an_event_is_ordered_once_though_its_transaction_was_not_the_first(
    make_world: MakeWorld, refused: int
) -> None:
    world = await make_world(Options(registry=registry_of("ep_a")))
    world.ledgers.errors.extend([LedgerUnavailable("the broker is gone")] * refused)

    await world.request("a")
    await world.clock.advance(20.0)
    world.tams.end_all()
    await world.clock.advance(2.0)

    assert orders(world) == [("ep_a", event.id) for event in world.ledgers.events]
    assert [event.id for event in world.ledgers.events] == ["a.1", "a.2", "a.3"]
