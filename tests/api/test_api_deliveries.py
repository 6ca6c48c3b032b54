"""Deliveries, attempts and replays over HTTP."""

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from bridge.webhook_messages import (
    After,
    DeadReason,
    InlineWebhook,
    Outcome,
    Replay,
    ReplayCancel,
    ReplayOrder,
    ReplayState,
    Scope,
)
from tests.api.examples import SECOND, Writer, attempt, delivery, endpoint, replay_order, tried
from tests.api.fakes import World, unconfirmed
from tests.roles.fakes import START

INLINE = InlineWebhook(url="https://u:p@acme.example/in?token=geheim", tenant="acme")


@pytest.fixture
def writer(world: World) -> Writer:
    return Writer(world)


async def ids(client: httpx.AsyncClient, path: str, **query: Any) -> list[str]:
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    return [each.get("delivery_id", each["id"]) for each in response.json()["data"]]


# ---- deliveries
async def test_a_delivery_is_followed_from_its_first_attempt_to_its_end(
    writer: Writer, admin: httpx.AsyncClient
) -> None:
    path = "/v1/deliveries/ep_1/order-1.3"
    waiting = tried(delivery(next_at=START + 5 * SECOND), Outcome.FAILED)
    writer.pending(waiting)
    writer.attempt(attempt(waiting, After.WAITING))
    pending = (await admin.get(path)).json()
    done = tried(waiting, Outcome.DELIVERED, after_s=6, code=200)
    writer.attempt(attempt(done, After.DELIVERED))
    writer.ended(done)
    ended = (await admin.get(path)).json()

    assert (pending["state"], pending["next_at"], len(pending["attempts"])) == ("pending", "2026-03-01T12:00:05Z", 1)
    assert (ended["state"], ended["next_at"], ended["used"]) == ("delivered", None, 2)
    assert [(each["number"], each["outcome"], each["status"]) for each in ended["attempts"]] == [
        (1, "failed", 500),
        (2, "delivered", 200),
    ]
    assert ended["last_attempt"] == ended["attempts"][-1]
    assert ended["attempts"][0]["error"] == "the receiver answered 500"


async def test_a_dead_delivery_says_why(writer: Writer, admin: httpx.AsyncClient) -> None:
    given_up = tried(delivery(), Outcome.FAILED)
    writer.attempt(attempt(given_up, After.DEAD))
    writer.dead(given_up, DeadReason.TOO_OLD)

    shown = (await admin.get("/v1/deliveries/ep_1/order-1.3")).json()

    assert (shown["state"], shown["dead_reason"], shown["dead_at"]) == ("dead", "too_old", "2026-03-01T12:00:09Z")


async def test_a_request_id_may_hold_slashes(writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.pending(delivery("a/b c.1"))

    assert (await admin.get("/v1/deliveries/ep_1/a%2Fb%20c.1")).json()["event_id"] == "a/b c.1"


async def test_a_url_given_inside_a_request_is_shown_without_what_may_be_secret(
    writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.pending(delivery("order-1.3", "in_1", inline=INLINE))

    response = await admin.get("/v1/deliveries/in_1/order-1.3")

    assert response.json()["inline"] == {"url": "https://acme.example/in", "tenant": "acme"}
    assert "geheim" not in response.text


async def test_deliveries_are_narrowed_in_every_way(writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.pending(
        delivery("a.1", ordered=START + 1 * SECOND, type="tams.job.running"),
        delivery("a.2", ordered=START + 2 * SECOND),
        delivery("a.2", "ep_2", ordered=START + 3 * SECOND),
        delivery("b.1", ordered=START + 4 * SECOND),
    )
    writer.dead(tried(delivery("c.1", ordered=START + 5 * SECOND), Outcome.FAILED))
    done = tried(delivery("d.1", ordered=START + 6 * SECOND), Outcome.DELIVERED)
    writer.attempt(attempt(done, After.DELIVERED))
    path = "/v1/deliveries"

    everything = ["ep_1/d.1", "ep_1/c.1", "ep_1/b.1", "ep_2/a.2", "ep_1/a.2", "ep_1/a.1"]
    assert await ids(admin, path) == everything
    assert await ids(admin, path, endpoint_id="ep_2") == ["ep_2/a.2"]
    assert await ids(admin, path, endpoint_id="ep_3") == []
    assert await ids(admin, path, request_id="a") == everything[3:]
    assert await ids(admin, path, event_id="a.2") == everything[3:5]
    assert await ids(admin, path, event_id="a.2", endpoint_id="ep_1") == ["ep_1/a.2"]
    assert await ids(admin, path, event_id="a") == []
    assert await ids(admin, path, type="*.running") == ["ep_1/a.1"]
    assert await ids(admin, path, type=["*.running", "tams.job.none"]) == ["ep_1/a.1"]
    assert await ids(admin, path, state="dead") == ["ep_1/c.1"]
    assert await ids(admin, path, state="delivered") == ["ep_1/d.1"]
    assert await ids(admin, path, state="pending") == everything[2:]
    assert await ids(admin, path, since="2026-03-01T12:00:05Z") == everything[:2]
    assert await ids(admin, path, since="2026-03-01T13:00:03+01:00", until="2026-03-01T12:00:04Z") == everything[2:4]


async def test_deliveries_are_read_page_by_page(writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.pending(*(delivery(f"a.{number}", ordered=START + number * SECOND) for number in range(1, 6)))

    first = (await admin.get("/v1/deliveries", params={"limit": 3, "request_id": "a"})).json()
    writer.pending(delivery("a.9", ordered=START + 9 * SECOND))
    second = (await admin.get("/v1/deliveries", params={"limit": 3, "cursor": first["next"]})).json()

    assert [each["event_id"] for each in first["data"]] == ["a.5", "a.4", "a.3"]
    assert [each["event_id"] for each in second["data"]] == ["a.2", "a.1"]
    assert second["next"] is None


@pytest.mark.parametrize(
    "query", [{"state": "lost"}, {"since": "yesterday"}, {"since": "5"}, {"until": "2026-03-01T12:00:00"}, {"limit": 0}]
)
async def test_a_wrong_filter_is_named(query: dict[str, str], admin: httpx.AsyncClient) -> None:
    for path in ("/v1/deliveries", "/v1/attempts"):
        response = await admin.get(path, params=query)

        assert response.status_code == 422
        assert {each["field"] for each in response.json()["errors"]} == query.keys()


@pytest.mark.parametrize("path", ["deliveries/ep_1/x.1", "deliveries/ep_1/", "attempts/0-1", "replays/rp_none"])
async def test_what_nobody_knows_is_a_404(path: str, admin: httpx.AsyncClient) -> None:
    assert (await admin.get(f"/v1/{path}")).status_code == 404


# ---- attempts
async def test_an_attempt_is_shown_with_both_heads(writer: Writer, admin: httpx.AsyncClient) -> None:
    attempt_id = writer.attempt(attempt(tried(delivery(), Outcome.DELIVERED, code=200), After.DELIVERED))

    shown = (await admin.get(f"/v1/attempts/{attempt_id}")).json()

    assert shown == {
        "id": attempt_id,
        "delivery_id": "ep_1/order-1.3",
        "endpoint_id": "ep_1",
        "event_id": "order-1.3",
        "type": "tams.job.success",
        "request_id": "order-1",
        "webhook_id": "msg_1",
        "url": "https://acme.example/hook",
        "number": 1,
        "time": "2026-03-01T12:00:01Z",
        "outcome": "delivered",
        "status": 200,
        "error": "",
        "duration_s": 0.25,
        "state": "delivered",
        "request": {"headers": {"webhook-id": "msg_1", "webhook-signature": "v1,***"}},
        "response": {"headers": {"content-type": "text/plain"}, "body": "ok"},
    }


async def test_an_attempt_without_answer_has_no_response(writer: Writer, admin: httpx.AsyncClient) -> None:
    refused = attempt(tried(delivery(), Outcome.FAILED, code=0), After.WAITING)
    first = writer.attempt(refused)
    second = writer.attempt(replace(refused, exchange=None))

    shown = [(await admin.get(f"/v1/attempts/{each}")).json() for each in (first, second)]

    assert [(each["request"] is None, each["response"]) for each in shown] == [(False, None), (True, None)]


async def test_attempts_are_narrowed_like_deliveries(writer: Writer, admin: httpx.AsyncClient) -> None:
    first = tried(delivery("a.1"), Outcome.FAILED, after_s=1)
    writer.attempt(attempt(first, After.WAITING))
    writer.attempt(attempt(tried(first, Outcome.DELIVERED, after_s=9), After.DELIVERED))
    writer.attempt(attempt(tried(delivery("b.1", "ep_2", type="tams.job.failed"), Outcome.GONE, after_s=5), After.DEAD))
    path = "/v1/attempts"

    assert await ids(admin, path) == ["ep_1/a.1", "ep_2/b.1", "ep_1/a.1"]
    assert await ids(admin, path, endpoint_id="ep_2") == ["ep_2/b.1"]
    assert await ids(admin, path, request_id="a", state="pending") == ["ep_1/a.1"]
    assert await ids(admin, path, event_id="b.1") == ["ep_2/b.1"]
    assert await ids(admin, path, type="tams.job.failed") == ["ep_2/b.1"]
    assert await ids(admin, path, since="2026-03-01T12:00:05Z") == ["ep_1/a.1", "ep_2/b.1"]
    assert await ids(admin, path, until="2026-03-01T12:00:04Z") == ["ep_1/a.1"]


# ---- redelivery
async def test_a_dead_delivery_is_asked_for_again_from_the_dead_ones(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    writer.dead(tried(delivery(time=START - 9 * SECOND), Outcome.FAILED))

    response = await admin.post("/v1/deliveries/ep_1/order-1.3/redeliver")

    (order,) = world.orders.orders
    assert response.status_code == 202
    assert isinstance(order, ReplayOrder)
    assert response.json() == {"replay_id": order.replay_id}
    assert (order.endpoint_id, order.event_id, order.failed_only) == ("ep_1", "order-1.3", True)
    assert order.since == order.until == START - 9 * SECOND


async def test_a_delivered_one_is_asked_for_again_from_the_events(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    writer.attempt(attempt(tried(delivery(), Outcome.DELIVERED), After.DELIVERED))

    assert (await admin.post("/v1/deliveries/ep_1/order-1.3/redeliver")).status_code == 202
    (order,) = world.orders.orders
    assert isinstance(order, ReplayOrder)
    assert not order.failed_only


async def test_a_dead_delivery_to_a_url_inside_a_request_can_be_asked_for_again(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    """Its record holds the URL; one that was delivered has left none."""
    writer.dead(tried(delivery("a.1", "in_1", inline=INLINE), Outcome.FAILED))
    writer.attempt(attempt(tried(delivery("a.2", "in_1", inline=INLINE), Outcome.DELIVERED), After.DELIVERED))

    assert (await admin.post("/v1/deliveries/in_1/a.1/redeliver")).status_code == 202
    assert (await admin.post("/v1/deliveries/in_1/a.2/redeliver")).status_code == 409
    assert len(world.orders.orders) == 1


async def test_what_cannot_be_delivered_again_is_refused_with_the_reason(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    writer.pending(delivery("a.1"))
    sent = tried(delivery("test_1.1", type="tams.webhook.test"), Outcome.DELIVERED)
    writer.attempt(attempt(sent, After.DELIVERED))
    writer.dead(tried(delivery("a.1", "ep_deleted"), Outcome.FAILED))

    for name, reason in (("ep_1/a.1", "pending"), ("ep_1/test_1.1", "test event"), ("ep_deleted/a.1", "deleted")):
        response = await admin.post(f"/v1/deliveries/{name}/redeliver")
        assert response.status_code == 409
        assert reason in response.json()["detail"]
    assert (await admin.post("/v1/deliveries/ep_1/x.1/redeliver")).status_code == 404
    assert world.orders.orders == []


# ---- replays
async def test_a_replay_is_queued_at_once_and_then_shown_as_the_forwarder_tells(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    await world.clock.advance(100)

    queued = await admin.post("/v1/endpoints/ep_1/replays", json={"since": "2026-03-01T11:00:00Z"})
    (order,) = world.orders.orders
    path = f"/v1/replays/{queued.json()['id']}"
    before = (await admin.get(path)).json()
    assert isinstance(order, ReplayOrder)
    running = Replay(
        order=order, positions={"t-0": 30, "t-1": 5}, ends={"t-0": 40, "t-1": 5}, scanned=30, matched=7, changed=START
    )
    writer.replay(running)
    during = (await admin.get(path)).json()
    writer.replay(replace(running, state=ReplayState.DONE))
    after = (await admin.get(path)).json()

    assert queued.status_code == 202
    assert queued.json() == before
    assert (before["state"], before["progress"], before["until"]) == ("queued", 0.0, "2026-03-01T12:01:40Z")
    assert (during["state"], during["progress"], during["scanned"], during["matched"]) == ("running", 0.75, 30, 7)
    assert (after["state"], after["progress"]) == ("done", 1.0)


async def test_a_replay_may_be_of_a_range_and_of_failed_ones_only(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    body = {"since": "2026-03-01T11:00:00Z", "until": "2026-03-01T11:30:00+00:00", "failed_only": True}

    await admin.post("/v1/endpoints/ep_1/replays", json=body)

    (order,) = world.orders.orders
    assert isinstance(order, ReplayOrder)
    assert (START - order.since).total_seconds() == 3600
    assert (START - order.until).total_seconds() == 1800
    assert order.failed_only


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": "2026-03-01T11:00:00"},
        {"since": 5},
        {"since": "5"},
        {"since": "2026-03-01T12:00:01Z"},
        {"since": "2026-03-01T11:00:00Z", "until": "2026-03-01T10:00:00Z"},
        {"since": "2026-03-01T11:00:00Z", "failed_only": "no"},
        {"since": "2026-03-01T11:00:00Z", "event_id": "x"},
    ],
)
async def test_a_replay_of_nothing_is_refused(
    body: dict[str, object], world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())

    assert (await admin.post("/v1/endpoints/ep_1/replays", json=body)).status_code == 422
    assert world.orders.orders == []


async def test_replays_of_an_endpoint_are_listed_newest_first_queued_ones_included(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    for number in range(3):
        order = replay_order(f"rp_{number}", created=START + number * SECOND)
        writer.replay(Replay(order=order, changed=START))
    writer.replay(Replay(order=replay_order("rp_other", "ep_2"), changed=START))
    await world.clock.advance(2.5)
    queued = (await admin.post("/v1/endpoints/ep_1/replays", json={"since": "2026-03-01T11:00:00Z"})).json()["id"]
    path = "/v1/endpoints/ep_1/replays"

    first = (await admin.get(path, params={"limit": 2})).json()
    second = (await admin.get(path, params={"limit": 2, "cursor": first["next"]})).json()

    assert [each["id"] for each in first["data"] + second["data"]] == [queued, "rp_2", "rp_1", "rp_0"]
    assert second["next"] is None or (await admin.get(path, params={"cursor": second["next"]})).json()["data"] == []


async def test_a_replay_is_canceled_once(world: World, writer: Writer, admin: httpx.AsyncClient) -> None:
    order = replay_order()
    writer.replay(Replay(order=order, changed=START))

    asked = await admin.post("/v1/replays/rp_1/cancel")
    writer.replay(Replay(order=order, state=ReplayState.CANCELED, changed=START))
    again = await admin.post("/v1/replays/rp_1/cancel")

    assert (asked.status_code, again.status_code) == (202, 409)
    assert world.orders.orders == [ReplayCancel(replay_id="rp_1", endpoint_id="ep_1")]


async def test_a_queued_replay_can_be_canceled(world: World, writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.endpoint(endpoint())
    replay = (await admin.post("/v1/endpoints/ep_1/replays", json={"since": "2026-03-01T11:00:00Z"})).json()["id"]

    assert (await admin.post(f"/v1/replays/{replay}/cancel")).status_code == 202
    assert world.orders.orders[-1] == ReplayCancel(replay_id=replay, endpoint_id="ep_1")


async def test_a_replay_that_was_not_confirmed_is_not_shown(
    world: World, writer: Writer, admin: httpx.AsyncClient
) -> None:
    writer.endpoint(endpoint())
    world.orders.errors.append(unconfirmed())

    response = await admin.post("/v1/endpoints/ep_1/replays", json={"since": "2026-03-01T11:00:00Z"})

    assert response.status_code == 503
    assert (await admin.get("/v1/endpoints/ep_1/replays")).json()["data"] == []


# ---- tenants
async def test_a_tenants_key_sees_what_goes_to_its_own_endpoints(world: World, writer: Writer) -> None:
    writer.endpoint(endpoint("ep_own", tenant="acme"))
    writer.endpoint(endpoint("ep_all"))
    for name, inline in (("ep_own", None), ("ep_all", None), ("ep_deleted", None), ("in_1", INLINE)):
        done = tried(delivery("a.1", name, inline=inline), Outcome.DELIVERED)
        writer.attempt(attempt(done, After.DELIVERED))
    other = tried(delivery("a.1", "in_2", inline=InlineWebhook(url="https://x.example/")), Outcome.DELIVERED)
    hidden = writer.attempt(attempt(other, After.DELIVERED))
    writer.replay(Replay(order=replay_order(endpoint_id="ep_all"), changed=START))
    async with world.client(Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE, tenant="acme") as acme:
        for path in ("/v1/deliveries", "/v1/attempts"):
            assert sorted(await ids(acme, path)) == ["ep_own/a.1", "in_1/a.1"]
        for path in (
            "deliveries/ep_all/a.1",
            "deliveries/ep_deleted/a.1",
            "deliveries/in_2/a.1",
            f"attempts/{hidden}",
            "replays/rp_1",
            "endpoints/ep_all/replays",
        ):
            assert (await acme.get(f"/v1/{path}")).status_code == 404, path
        assert (await acme.post("/v1/deliveries/ep_all/a.1/redeliver")).status_code == 404
        assert (await acme.post("/v1/replays/rp_1/cancel")).status_code == 404
        assert (await acme.post("/v1/endpoints/ep_all/test")).status_code == 404
