"""Endpoints over HTTP: what is registered, shown, changed and refused."""

import asyncio
import json
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import httpx
import msgspec
import pytest

from bridge.api.ports import ApiLimits
from bridge.core.registry import endpoint_key, status_key
from bridge.core.signatures import Signer, Verifier
from bridge.webhook_messages import Endpoint, Order, Scope
from bridge.webhook_ports import NoResponse, Response
from tests.api.examples import SECOND, SECRET, Writer, delivery, endpoint, status
from tests.api.fakes import HOOK, PUBLIC, FakeBox, World, unconfirmed
from tests.roles.fakes import START

FULL: dict[str, Any] = {
    "url": HOOK,
    "description": "für Menschen",
    "event_types": ["tams.job.success", "*.failed"],
    "labels": {"kind": "ü"},
    "tenant": "acme",
    "headers": {"X-Token": "geheim-tok3n"},
    "scheme": "v1",
    "rate": 5,
    "max_in_flight": 3,
    "retry_schedule_s": [1, 2.5],
    "timeout_s": 20,
    "ordering": "job",
    "drop_superseded": True,
    "handshake": False,
}


def written(world: World, number: int = -1) -> Endpoint:
    key, value = world.registry_log.records[number]
    record = msgspec.json.decode(value or b"", type=Endpoint)
    assert key == endpoint_key(record.id)
    return record


async def created(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/endpoints", json={"url": HOOK, **fields})
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


# ---- creation
async def test_a_url_is_all_it_takes(world: World, admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/endpoints", json={"url": HOOK})

    document = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/endpoints/{document['id']}"
    assert document["id"].startswith("ep_")
    assert len(document["id"]) == 27
    assert document["state"] == "enabled"
    assert document["event_types"] == ["tams.job.*"]
    assert document["secret"].startswith("whsec_")
    assert document["created"] == "2026-03-01T12:00:00Z"
    record = written(world)
    assert FakeBox().unseal(record.secrets[0].sealed, owner=record.id) == document["secret"]


async def test_everything_given_is_kept_and_shown_but_for_what_is_secret(
    world: World, admin: httpx.AsyncClient
) -> None:
    document = await created(admin, **FULL)
    record = written(world)

    shown = (await admin.get(f"/v1/endpoints/{document['id']}")).json()
    assert {name: shown[name] for name in FULL} == {**FULL, "headers": {"x-token": "***"}}
    assert "secret" not in shown
    assert json.loads(FakeBox().unseal(record.sealed_headers, owner=record.id)) == {"x-token": "geheim-tok3n"}
    everything = json.dumps(shown) + json.dumps((await admin.get("/v1/endpoints")).json())
    assert "tok3n" not in everything
    assert document["secret"] not in everything


async def test_nothing_secret_is_written_in_the_open(world: World, admin: httpx.AsyncClient) -> None:
    document = await created(admin, **FULL)

    _, value = world.registry_log.records[-1]

    assert value is not None
    assert document["secret"].encode() not in value
    assert b"tok3n" not in value


async def test_secrets_are_not_to_be_cached(admin: httpx.AsyncClient) -> None:
    made = await admin.post("/v1/endpoints", json={"url": HOOK})
    rotated = await admin.post(f"{made.headers['location']}/rotate")
    tenant = await admin.post("/v1/tenants/acme/secret/rotate")
    key = await admin.post("/v1/api-keys", json={"name": "n", "scopes": ["admin"]})

    assert {each.headers["cache-control"] for each in (made, rotated, tenant, key)} == {"no-store"}


async def test_a_key_pair_shows_its_public_half_for_good(world: World, admin: httpx.AsyncClient) -> None:
    document = await created(admin, scheme="v1a")

    shown = (await admin.get(f"/v1/endpoints/{document['id']}")).json()
    assert document["secret"].startswith("whsk_")
    signature = Signer([document["secret"]]).header(webhook_id="m", timestamp=int(START.timestamp()), body=b"x")
    headers = {"webhook-id": "m", "webhook-timestamp": f"{START.timestamp():.0f}", "webhook-signature": signature}
    Verifier([shown["public_key"]]).verify(headers, b"x", now=world.clock.now())


async def test_two_endpoints_have_two_ids_and_two_secrets(admin: httpx.AsyncClient) -> None:
    first, second = await created(admin), await created(admin)

    assert first["id"] != second["id"]
    assert first["secret"] != second["secret"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", ""),
        ("url", "ftp://acme.example/"),
        ("url", "http://acme.example/"),
        ("url", "https://127.0.0.1/"),
        ("url", "https://[::1]/"),
        ("url", "https://user@acme.example/"),
        ("url", "https://nowhere.example/"),
        ("url", "https://inside.example/"),
        ("url", 7),
        ("event_types", []),
        ("event_types", ["tams.job.sucess"]),
        ("event_types", ["TAMS.JOB.*"]),
        ("event_types", "tams.job.*"),
        ("labels", {"a": 1}),
        ("labels", {"": "a"}),
        ("labels", {str(number): "x" for number in range(21)}),
        ("tenant", ""),
        ("headers", {"webhook-id": "x"}),
        ("headers", {"Content-Type": "x"}),
        ("headers", {"Host": "x"}),
        ("headers", {"a b": "x"}),
        ("headers", {"a": "x\r\ny: z"}),
        ("headers", {"a": "ü"}),
        ("headers", {"a": "1", "A": "2"}),
        ("headers", {str(number): "x" for number in range(21)}),
        ("scheme", "v2"),
        ("rate", 0),
        ("rate", "5"),
        ("max_in_flight", 0),
        ("max_in_flight", 1.5),
        ("retry_schedule_s", [0]),
        ("retry_schedule_s", [1] * 31),
        ("timeout_s", 61),
        ("timeout_s", True),
        ("ordering", "fifo"),
        ("drop_superseded", "yes"),
        ("handshake", None),
        ("id", "ep_mine"),
        ("secret", "whsec_mine"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(
    field: str, value: object, world: World, admin: httpx.AsyncClient
) -> None:
    world.receivers.names["inside.example"] = [ip_address(PUBLIC), ip_address("10.0.0.1")]

    response = await admin.post("/v1/endpoints", content=json.dumps({"url": HOOK, field: value}))

    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == 422
    assert {each["field"].split(".")[0] for each in problem["errors"]} == {field}
    assert all(each["message"] for each in problem["errors"])
    assert world.registry_log.records == []


async def test_without_an_encryption_key_nothing_is_registered() -> None:
    world = World(has_box=False)
    async with world.client() as client:
        response = await client.post("/v1/endpoints", json={"url": HOOK})

    assert response.status_code == 503
    assert "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS" in response.json()["detail"]
    assert world.registry_log.records == []


async def test_a_broker_that_does_not_confirm_is_a_503_that_says_what_is_known(
    world: World, admin: httpx.AsyncClient
) -> None:
    world.registry_log.errors.append(unconfirmed())

    response = await admin.post("/v1/endpoints", json={"url": HOOK})

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "may have happened" in response.json()["detail"]


# ---- idempotency
async def test_a_repeat_with_the_same_word_is_the_same_endpoint_and_secret(
    world: World, admin: httpx.AsyncClient
) -> None:
    """However the JSON is written, and from another process that has only the registry."""
    headers = {"idempotency-key": "order-7"}
    first = await admin.post("/v1/endpoints", json={"url": HOOK, "rate": 5}, headers=headers)
    other = World(registry=world.registry, keyring=world.keyring)
    async with other.client_with({**admin.headers, **headers}) as client:
        again = await client.post("/v1/endpoints", content=b'{ "rate": 5.0, "url": "%s" }' % HOOK.encode())

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert len(world.registry.endpoints) == 1
    assert other.registry_log.records == []


async def test_repeats_at_the_same_time_make_one_endpoint(world: World, admin: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "order-7"}

    answers = await asyncio.gather(
        *(admin.post("/v1/endpoints", json={"url": HOOK}, headers=headers) for _ in range(5))
    )

    assert {answer.text for answer in answers} == {answers[0].text}
    assert len(world.registry_log.records) == 1


async def test_the_same_word_for_something_else_is_a_conflict(world: World, admin: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "order-7"}
    await admin.post("/v1/endpoints", json={"url": HOOK}, headers=headers)

    response = await admin.post("/v1/endpoints", json={"url": HOOK, "rate": 1}, headers=headers)

    assert response.status_code == 409
    assert len(world.registry_log.records) == 1


async def test_the_same_word_of_another_key_is_another_endpoint(world: World, admin: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "order-7"}
    first = await admin.post("/v1/endpoints", json={"url": HOOK}, headers=headers)
    async with world.client() as other:
        second = await other.post("/v1/endpoints", json={"url": HOOK}, headers=headers)

    assert first.json()["id"] != second.json()["id"]


async def test_a_creation_that_was_not_confirmed_can_be_repeated(world: World, admin: httpx.AsyncClient) -> None:
    world.registry_log.errors.append(unconfirmed())
    headers = {"idempotency-key": "order-7"}

    first = await admin.post("/v1/endpoints", json={"url": HOOK}, headers=headers)
    second = await admin.post("/v1/endpoints", json={"url": HOOK}, headers=headers)

    assert (first.status_code, second.status_code) == (503, 201)


@pytest.mark.parametrize("word", ["", "a b", "x" * 256, "ü"])
async def test_an_odd_idempotency_key_is_refused(word: str, admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/endpoints", json={"url": HOOK}, headers={b"idempotency-key": word.encode()})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "idempotency-key"


# ---- the handshake
async def consent(world: World, client: httpx.AsyncClient, answer: Response | NoResponse, **fields: Any) -> Any:
    world.receivers.answer = answer
    return await client.post("/v1/endpoints", json={"url": HOOK, "handshake": True, **fields})


def allowing(**headers: str) -> Response:
    given = {f"webhook-allowed-{name}": value for name, value in headers.items()}
    return Response(status=200, headers=given, body=b"")


async def test_a_receiver_that_consents_is_registered(world: World, admin: httpx.AsyncClient) -> None:
    response = await consent(world, admin, allowing(origin="tams-bridge"), rate=2)

    (post,) = world.receivers.posts
    assert response.status_code == 201
    assert response.json()["handshake"]
    assert (post.method, post.url, post.body) == ("OPTIONS", HOOK, b"")
    assert post.headers["webhook-request-origin"] == "tams-bridge"
    assert post.headers["webhook-request-rate"] == "120"


@pytest.mark.parametrize(
    ("wished", "allowed", "rate"),
    [(None, "120", 2.0), (5, "120", 2.0), (1, "120", 1.0), (5, "*", 5.0), (None, "*", None), (5, "", 5.0)],
)
async def test_the_rate_is_what_both_agree_on(
    wished: float | None, allowed: str, rate: float | None, world: World, admin: httpx.AsyncClient
) -> None:
    """The protocol counts POSTs by the minute."""
    response = await consent(world, admin, allowing(origin="*", rate=allowed), rate=wished)

    assert response.json()["rate"] == rate


@pytest.mark.parametrize(
    "answer",
    [
        NoResponse(error="connection refused"),
        Response(status=200, headers={}, body=b""),
        Response(status=405, headers={"webhook-allowed-origin": "*"}, body=b""),
        Response(status=799, headers={"webhook-allowed-origin": "*"}, body=b""),
        allowing(origin="other.example"),
        allowing(origin="*", rate="0"),
        allowing(origin="*", rate="many"),
    ],
)
async def test_a_receiver_that_does_not_consent_is_not_registered(
    answer: Response | NoResponse, world: World, admin: httpx.AsyncClient
) -> None:
    response = await consent(world, admin, answer)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "handshake"
    assert world.registry_log.records == []


async def test_nobody_is_asked_where_no_webhook_may_go(world: World, admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/endpoints", json={"url": "https://127.0.0.1/", "handshake": True})

    assert response.status_code == 422
    assert world.receivers.posts == []


async def test_consent_is_asked_again_for_another_url_or_rate_and_for_nothing_else(
    world: World, admin: httpx.AsyncClient
) -> None:
    world.receivers.names["other.example"] = [ip_address(PUBLIC)]
    document = (await consent(world, admin, allowing(origin="*"))).json()
    path, asked = f"/v1/endpoints/{document['id']}", world.receivers.posts

    for change, count in (({"description": "x"}, 1), ({"rate": 3}, 2), ({"url": "https://other.example/"}, 3)):
        assert (await admin.patch(path, json=change)).status_code == 200
        assert len(asked) == count


async def test_a_public_address_needs_no_resolver(world: World, admin: httpx.AsyncClient) -> None:
    world.receivers.names.clear()

    assert (await admin.post("/v1/endpoints", json={"url": f"https://{PUBLIC}/hook"})).status_code == 201


# ---- reading
async def test_what_the_dispatcher_tells_is_shown(world: World, admin: httpx.AsyncClient) -> None:
    writer = Writer(world)
    writer.endpoint(
        endpoint(),
        status(disabled_at=START, disabled_reason="gone", failing_since=START, warned=True, last_error="410"),
    )
    writer.pending(delivery("a.1"), delivery("a.2"), delivery("a.1", "ep_2"))

    shown = (await admin.get("/v1/endpoints/ep_1")).json()

    assert shown["state"] == "disabled"
    assert shown["disabled"] == {"reason": "gone", "at": "2026-03-01T12:00:00Z"}
    assert (shown["failing_since"], shown["warned"], shown["last_error"]) == ("2026-03-01T12:00:00Z", True, "410")
    assert shown["pending"] == 2


async def test_a_secret_that_cannot_be_opened_hides_nothing_else(world: World, admin: httpx.AsyncClient) -> None:
    """The public key alone is not known."""
    document = await created(admin, scheme="v1a")
    record = written(world)
    foreign = msgspec.structs.replace(record.secrets[0], sealed="other|")
    Writer(world).endpoint(msgspec.structs.replace(record, secrets=(foreign,)))

    shown = await admin.get(f"/v1/endpoints/{document['id']}")

    assert (shown.status_code, shown.json()["public_key"]) == (200, None)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_endpoint_is_a_404(method: str, admin: httpx.AsyncClient) -> None:
    response = await admin.request(method, "/v1/endpoints/ep_none", json={})

    assert (response.status_code, response.json()["title"]) == (404, "Not Found")


async def test_endpoints_are_listed_newest_first_page_by_page(world: World, admin: httpx.AsyncClient) -> None:
    writer = Writer(world)
    for number in range(5):
        writer.endpoint(endpoint(f"ep_{number}", created=START + number // 2 * SECOND))

    pages, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/v1/endpoints", params=query)).json()
        pages.append([each["id"] for each in page["data"]])
        cursor = page["next"]
        if cursor is None:
            break

    assert pages == [["ep_4", "ep_3"], ["ep_2", "ep_1"], ["ep_0"]]


async def test_lists_are_narrowed_by_state_and_tenant(world: World, admin: httpx.AsyncClient) -> None:
    writer = Writer(world)
    writer.endpoint(endpoint("ep_1", tenant="acme"))
    writer.endpoint(endpoint("ep_2", paused=True))
    writer.endpoint(endpoint("ep_3", tenant="acme"), status("ep_3", disabled_at=START))

    async def listed(**query: str) -> set[str]:
        page = (await admin.get("/v1/endpoints", params=query)).json()
        return {each["id"] for each in page["data"]}

    assert await listed(state="enabled") == {"ep_1"}
    assert await listed(state="paused") == {"ep_2"}
    assert await listed(state="disabled", tenant="acme") == {"ep_3"}
    assert await listed(tenant="acme") == {"ep_1", "ep_3"}
    assert await listed(tenant="") == set()


# ---- change and deletion
async def test_a_change_touches_what_it_names_and_nothing_else(world: World, admin: httpx.AsyncClient) -> None:
    document = await created(admin, **FULL)
    await world.clock.advance(60)

    response = await admin.patch(f"/v1/endpoints/{document['id']}", json={"rate": 7, "labels": {}})

    expected = {name: value for name, value in document.items() if name != "secret"}
    assert response.status_code == 200
    assert response.json() == {**expected, "rate": 7.0, "labels": {}, "changed": "2026-03-01T12:01:00Z"}


async def test_null_brings_the_default_back(world: World, admin: httpx.AsyncClient) -> None:
    document = await created(admin, **FULL)
    fields = set(FULL) - {"url", "scheme"}

    shown = (await admin.patch(f"/v1/endpoints/{document['id']}", json=dict.fromkeys(fields))).json()

    fresh = await created(admin)
    assert {name: shown[name] for name in fields} == {name: fresh[name] for name in fields}
    assert written(world, 1).sealed_headers == ""


@pytest.mark.parametrize("change", [{"url": None}, {"url": "https://10.0.0.1/"}, {"scheme": "v1a"}, {"id": "x"}])
async def test_a_wrong_change_changes_nothing(
    change: dict[str, object], world: World, admin: httpx.AsyncClient
) -> None:
    document = await created(admin)

    response = await admin.patch(f"/v1/endpoints/{document['id']}", json=change)

    assert response.status_code == 422
    assert len(world.registry_log.records) == 1


async def test_a_change_to_what_is_already_so_is_not_written(world: World, admin: httpx.AsyncClient) -> None:
    document = await created(admin, rate=5)

    response = await admin.patch(f"/v1/endpoints/{document['id']}", json={"rate": 5})

    assert response.status_code == 200
    assert len(world.registry_log.records) == 1


async def test_changes_at_the_same_time_do_not_undo_each_other(admin: httpx.AsyncClient) -> None:
    document = await created(admin)
    path = f"/v1/endpoints/{document['id']}"

    await asyncio.gather(
        admin.patch(path, json={"rate": 5}), admin.patch(path, json={"timeout_s": 9}), admin.post(f"{path}/pause")
    )

    shown = (await admin.get(path)).json()
    assert (shown["rate"], shown["timeout_s"], shown["state"]) == (5.0, 9.0, "paused")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_only_the_revision_that_was_named_is_touched(method: str, admin: httpx.AsyncClient) -> None:
    path = (await admin.post("/v1/endpoints", json={"url": HOOK})).headers["location"]
    old = (await admin.get(path)).headers["etag"]
    new = (await admin.patch(path, json={"rate": 1})).headers["etag"]

    stale = await admin.request(method, path, json={"rate": 2}, headers={"if-match": old})
    fresh = await admin.request(method, path, json={"rate": 2}, headers={"if-match": f'"other", {new}'})

    assert stale.status_code == 412
    assert fresh.is_success
    assert old != new


async def test_any_revision_may_be_named_by_a_star(admin: httpx.AsyncClient) -> None:
    path = (await admin.post("/v1/endpoints", json={"url": HOOK})).headers["location"]

    assert (await admin.patch(path, json={"rate": 1}, headers={"if-match": "*"})).status_code == 200


async def test_a_deleted_endpoint_is_gone_with_its_status(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint(), status())

    response = await admin.delete("/v1/endpoints/ep_1")

    assert (response.status_code, response.content) == (204, b"")
    assert (await admin.get("/v1/endpoints/ep_1")).status_code == 404
    assert world.registry_log.records == [(endpoint_key("ep_1"), None)]
    assert world.status_log.records == [(status_key("ep_1"), None)]


# ---- rotation
async def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(
    world: World, admin: httpx.AsyncClient
) -> None:
    Writer(world).endpoint(endpoint())
    await world.clock.advance(10)

    response = await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 3600})

    newest, former = written(world).secrets
    box = FakeBox()
    assert response.status_code == 200
    assert box.unseal(newest.sealed, owner="ep_1") == response.json()["secret"]
    assert box.unseal(former.sealed, owner="ep_1") == SECRET
    assert newest.expires is None
    assert former.expires == START + timedelta(seconds=3610)


async def test_the_overlap_is_a_day_unless_it_is_given(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint())

    await admin.post("/v1/endpoints/ep_1/rotate")

    assert written(world).secrets[1].expires == START + timedelta(days=1)


async def test_without_overlap_the_former_secrets_are_gone_at_once(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint())

    await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 0})

    assert len(written(world).secrets) == 1


async def test_a_rotation_never_lengthens_the_life_of_a_secret_and_forgets_expired_ones(
    world: World, admin: httpx.AsyncClient
) -> None:
    Writer(world).endpoint(endpoint())
    await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 60})
    await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 3600})

    assert [each.expires for each in written(world).secrets] == [None, START + 3600 * SECOND, START + 60 * SECOND]
    await world.clock.advance(61)
    await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 1})
    assert len(written(world).secrets) == 3


async def test_secrets_do_not_pile_up_without_end(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint())
    answers = [(await admin.post("/v1/endpoints/ep_1/rotate")).status_code for _ in range(5)]

    assert answers == [200, 200, 200, 200, 409]
    assert (await admin.post("/v1/endpoints/ep_1/rotate", json={"overlap_s": 0})).status_code == 200


async def test_a_key_pair_is_followed_by_a_key_pair(admin: httpx.AsyncClient) -> None:
    document = await created(admin, scheme="v1a")

    rotated = (await admin.post(f"/v1/endpoints/{document['id']}/rotate")).json()

    assert rotated["secret"].startswith("whsk_")
    assert rotated["public_key"] != document["public_key"]


# ---- pause, resume, test
async def test_a_pause_lasts_until_it_is_resumed(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint())

    paused = await admin.post("/v1/endpoints/ep_1/pause")
    resumed = await admin.post("/v1/endpoints/ep_1/resume")

    assert [paused.json()["state"], resumed.json()["state"]] == ["paused", "enabled"]
    assert written(world).epoch == 1


async def test_resuming_enables_a_disabled_endpoint_under_a_new_epoch(world: World, admin: httpx.AsyncClient) -> None:
    """What was known of it holds no longer; its dispatcher's later word of the old epoch changes nothing."""
    writer = Writer(world)
    writer.endpoint(endpoint(), status(disabled_at=START, disabled_reason="failing", last_error="500"))

    resumed = (await admin.post("/v1/endpoints/ep_1/resume")).json()

    assert (resumed["state"], resumed["disabled"], resumed["last_error"]) == ("enabled", None, "")
    assert written(world).epoch == 2


@pytest.mark.parametrize("way", ["pause", "resume"])
async def test_a_switch_that_is_so_already_writes_nothing(way: str, world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint(paused=way == "pause"))

    assert (await admin.post(f"/v1/endpoints/ep_1/{way}")).status_code == 200
    assert world.registry_log.records == []


async def test_a_test_event_goes_through_the_normal_dispatch(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint(event_types=("tams.job.failed",)))

    response = await admin.post("/v1/endpoints/ep_1/test")

    (order,) = world.orders.orders
    assert isinstance(order, Order)
    assert response.status_code == 202
    assert response.json() == {"event_id": order.event_id, "delivery_id": f"ep_1/{order.event_id}"}
    assert (order.type, order.endpoint_id, order.time) == ("tams.webhook.test", "ep_1", START)
    assert json.loads(bytes(order.event))["id"] == order.event_id


async def test_every_test_event_is_another_one(world: World, admin: httpx.AsyncClient) -> None:
    """Or receivers would take it for a repeat."""
    Writer(world).endpoint(endpoint())

    ids = {(await admin.post("/v1/endpoints/ep_1/test")).json()["event_id"] for _ in range(3)}

    assert len(ids) == 3


async def test_no_test_event_for_who_gets_nothing_now(world: World, admin: httpx.AsyncClient) -> None:
    Writer(world).endpoint(endpoint(paused=True))

    response = await admin.post("/v1/endpoints/ep_1/test")

    assert response.status_code == 409
    assert "paused" in response.json()["detail"]
    assert world.orders.orders == []


# ---- tenants
async def test_a_key_of_a_tenant_sees_and_makes_only_what_is_its_own(world: World) -> None:
    writer = Writer(world)
    for name, tenant in (("ep_own", "acme"), ("ep_other", "other"), ("ep_all", None)):
        writer.endpoint(endpoint(name, tenant=tenant))
    async with world.client(Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE, tenant="acme") as acme:
        listed = (await acme.get("/v1/endpoints")).json()["data"]
        made = await created(acme)

        assert [each["id"] for each in listed] == ["ep_own"]
        assert made["tenant"] == "acme"
        assert (await acme.post("/v1/endpoints", json={"url": HOOK, "tenant": "other"})).status_code == 403
        for name in ("ep_other", "ep_all"):
            for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/rotate")):
                response = await acme.request(method, f"/v1/endpoints/{name}{path}", json={})
                assert response.status_code == 404, (name, method, path)
        assert (await acme.patch("/v1/endpoints/ep_own", json={"tenant": "other"})).status_code == 403
        assert (await acme.patch("/v1/endpoints/ep_own", json={"tenant": None})).json()["tenant"] == "acme"


async def test_a_tenants_secret_is_made_once_shown_and_replaced(world: World, admin: httpx.AsyncClient) -> None:
    missing = await admin.get("/v1/tenants/acme/secret")
    first = (await admin.post("/v1/tenants/acme/secret/rotate")).json()
    await world.clock.advance(5)
    second = (await admin.post("/v1/tenants/acme/secret/rotate", json={"overlap_s": 60})).json()
    shown = (await admin.get("/v1/tenants/acme/secret")).json()
    await world.clock.advance(60)

    assert missing.status_code == 404
    assert (first["tenant"], first["count"], second["count"]) == ("acme", 1, 2)
    assert first["secret"] != second["secret"]
    assert shown == {"tenant": "acme", "created": "2026-03-01T12:00:05Z", "count": 2}
    assert (await admin.get("/v1/tenants/acme/secret")).json()["count"] == 1
    newest = world.registry.tenants["acme"].secrets[0]
    assert FakeBox().unseal(newest.sealed, owner="acme") == second["secret"]


async def test_a_dash_stands_for_requests_without_tenant(world: World, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/tenants/-/secret/rotate")).json()

    assert made["tenant"] == "-"
    assert FakeBox().unseal(world.registry.tenants[""].secrets[0].sealed, owner="") == made["secret"]


async def test_a_tenants_name_may_hold_anything(world: World, admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/tenants/a%2Fb%20%C3%BC/secret/rotate")

    assert response.json()["tenant"] == "a/b ü"
    assert "a/b ü" in world.registry.tenants
    assert (await admin.get(f"/v1/tenants/{'x' * 300}/secret")).status_code == 422


async def test_a_tenants_key_reaches_its_own_secret_alone(world: World) -> None:
    async with world.client(Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE, tenant="acme") as acme:
        assert (await acme.post("/v1/tenants/acme/secret/rotate")).status_code == 200
        assert (await acme.post("/v1/tenants/other/secret/rotate")).status_code == 404
        assert (await acme.post("/v1/tenants/-/secret/rotate")).status_code == 404
        assert (await acme.get("/v1/tenants/other/secret")).status_code == 404


async def test_who_we_say_we_are_is_configured(world: World) -> None:
    world.limits = ApiLimits(origin="bridge.example")
    async with world.client() as client:
        response = await consent(world, client, allowing(origin="bridge.example"))

    assert response.status_code == 201
    assert world.receivers.posts[0].headers["webhook-request-origin"] == "bridge.example"
