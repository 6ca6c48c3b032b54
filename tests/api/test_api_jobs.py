"""Jobs and API keys over HTTP."""

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import Message
from typing_extensions import override

from bridge.api.ports import ApiLimits
from bridge.core.requests import CancelArrival, JobArrival, read_request
from bridge.messages import Failure, Phase
from bridge.ports import Arrival
from bridge.webhook_messages import ApiKey, Scope
from tests.api.examples import SECOND, Writer, job
from tests.api.fakes import FakeTopic, World, Written, unconfirmed
from tests.roles.fakes import START

PARAMS = b'{ "3": {"classType":"KSampler" , "inputs": {"seed": 12345678901234567890, "cfg": 7.50}, "\\u00fc": [1e3]} }'


def arrived(world: World, number: int = -1) -> JobArrival | CancelArrival:
    """The request as a worker reads it."""
    key, value = world.requests.records[number]
    return read_request(Arrival(offset=0, key=key, value=value), topic="t", partition=0, max_bytes=1_000_000)


async def submitted(client: httpx.AsyncClient, body: bytes) -> str:
    response = await client.post("/v1/jobs", content=body)
    assert response.status_code == 202, response.text
    request_id: str = response.json()["request_id"]
    return request_id


class SilentTopic(FakeTopic):
    """Brokers that never answer; tells that they were asked."""

    def __init__(self, asked: asyncio.Event) -> None:
        super().__init__()
        self._asked = asked

    @override
    async def write(self, key: bytes, value: bytes | None) -> None:
        self._asked.set()
        await asyncio.Event().wait()


@pytest.fixture
def writer(world: World) -> Writer:
    return Writer(world)


# ---- submission
@pytest.mark.parametrize("rest", [b"", b', "request_id": "order-1"', b', "requestId": null, "labels": null'])
async def test_the_graph_reaches_the_worker_byte_for_byte(rest: bytes, world: World, admin: httpx.AsyncClient) -> None:
    request_id = await submitted(admin, b'{"params": %s%s}' % (PARAMS, rest))

    read = arrived(world)
    assert isinstance(read, JobArrival)
    assert read.params == PARAMS
    assert read.request_id == request_id
    assert world.requests.records[-1][0] == request_id.encode()


async def test_a_complete_request_is_published_as_it_was_received(world: World, admin: httpx.AsyncClient) -> None:
    body = b' {"params" : %s, "unknown": 1.0, "requestId":"order-1", "maxAttempts": 2}\n' % PARAMS

    assert await submitted(admin, body) == "order-1"
    assert world.requests.records == [(b"order-1", body)]


async def test_a_request_without_id_is_given_one_and_keeps_the_rest(world: World, admin: httpx.AsyncClient) -> None:
    body = (
        b'{"params": {}, "unknown": [1.0], "deadlineS": 60, "maxAttempts": 2, "labels": {"a": "b"}, '
        b'"webhook": {"url": "https://acme.example/hook", "events": ["success"]}}'
    )

    first, second = await submitted(admin, body), await submitted(admin, body)

    read = arrived(world)
    assert isinstance(read, JobArrival)
    assert first != second
    assert (read.request_id, read.request.deadline_s, read.request.max_attempts) == (second, 60, 2)
    assert read.request.labels == {"a": "b"}
    assert read.request.webhook is not None
    assert b'"unknown":[1.0]' in (world.requests.records[-1][1] or b"")


async def test_trace_headers_go_with_the_request_and_nothing_else_does(world: World, admin: httpx.AsyncClient) -> None:
    headers = {"traceparent": "00-1", "x-correlation-id": "c", "x-other": "o"}

    await admin.post("/v1/jobs", content=b'{"params": {}}', headers=headers)

    assert world.requests.headers == [{"traceparent": "00-1", "x-correlation-id": "c"}]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"params": {}} x', 400, None),
        (b'{"params": {}, "labels": {"a": "\\ud800"}}', 400, None),
        (b'{"params": %s}' % (b'{"a":' * 5_000 + b"1" + b"}" * 5_000), 400, None),
        (b"[]", 422, "body"),
        (b"{}", 422, "params"),
        (b'{"params": []}', 422, "params"),
        (b'{"params": {}, "request_id": ""}', 422, "request_id"),
        (b'{"params": {}, "request_id": "a\\nb"}', 422, "request_id"),
        (b'{"params": {}, "labels": {"a": 1}}', 422, "labels.a"),
        (b'{"params": {}, "webhook": {"url": "nowhere"}}', 422, "webhook.url"),
        (b'{"params": {}, "webhook": {"url": "https://127.0.0.1/"}}', 422, "webhook.url"),
        (b'{"params": {}, "deadline_s": -1}', 422, "deadline_s"),
        (b'{"params": {}, "cancel": "order-1"}', 422, None),
    ],
)
async def test_what_no_worker_would_take_is_refused_at_once(
    body: bytes, status: int, field: str | None, world: World, admin: httpx.AsyncClient
) -> None:
    """Instead of going to the dead-letter topic."""
    response = await admin.post("/v1/jobs", content=body)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert response.json()["errors"][0]["field"] == field
    assert world.requests.records == []


async def test_a_request_longer_than_workers_take_is_refused() -> None:
    """The id that is added counts, too."""
    body = b'{"params": {"a": "%s"}}' % (b"x" * 980)
    world = World(limits=ApiLimits(request_bytes=len(body) + 5))
    async with world.client() as client:
        response = await client.post("/v1/jobs", content=body)

    assert response.status_code == 413
    assert world.requests.records == []


async def test_a_submission_that_is_not_confirmed_is_a_503(world: World, admin: httpx.AsyncClient) -> None:
    world.requests.errors.append(unconfirmed())

    response = await admin.post("/v1/jobs", content=b'{"params": {}, "request_id": "order-1"}')

    assert response.status_code == 503
    assert (await admin.get("/v1/jobs/order-1")).status_code == 404


# ---- reading
async def test_a_submitted_job_is_there_before_a_worker_has_it(writer: Writer, admin: httpx.AsyncClient) -> None:
    await submitted(admin, b'{"params": {}, "request_id": "order-1", "labels": {"a": "b"}}')
    before = (await admin.get("/v1/jobs/order-1")).json()
    writer.job(job(labels={"a": "b"}))
    after = (await admin.get("/v1/jobs/order-1")).json()

    assert (before["phase"], before["sequence"], before["labels"], before["job"]) == ("requested", 0, {"a": "b"}, None)
    assert (after["phase"], after["sequence"], after["attempt"]) == ("tracking", 3, 1)


async def test_a_job_is_shown_with_its_document_byte_for_byte(writer: Writer, admin: httpx.AsyncClient) -> None:
    error = Failure(code="TRANSITORY_ERROR", message="again", retryable=True, http_status=500)
    writer.job(job(error=error, deadline=START + SECOND, queue_rank=2, progress=0.5))

    response = await admin.get("/v1/jobs/order-1")

    document = response.json()
    assert b'"job":{"id": "881417947308949275", "credits": 0.80, "new": [1e3]}' in response.content
    assert document["error"] == {
        "code": "TRANSITORY_ERROR",
        "message": "again",
        "retryable": True,
        "http_status": 500,
    }
    assert document["accepted_at"] == "2026-03-01T12:00:00Z"
    assert document["deadline"] == "2026-03-01T12:00:01Z"
    assert (document["queue_rank"], document["progress"], document["status"]) == (2, 0.5, "RUNNING")


async def test_a_request_id_may_hold_anything_printable(world: World, writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.job(job("a/b c?ü"))

    assert (await admin.get("/v1/jobs/a%2Fb%20c%3F%C3%BC")).json()["request_id"] == "a/b c?ü"
    assert (await admin.post("/v1/jobs/a%2Fb%20c%3F%C3%BC/cancel")).status_code == 202
    assert world.requests.records[-1][0] == "a/b c?ü".encode()


async def test_jobs_are_narrowed_in_every_way(writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.job(
        job("a", Phase.SUCCESS, labels={"x": "1", "y": "2"}),
        job("b", labels={"x": "1"}, accepted_at=START + SECOND),
        job("c", Phase.FAILED, labels=None, accepted_at=START + 2 * SECOND),
    )

    async def listed(**query: Any) -> str:
        response = await admin.get("/v1/jobs", params=query)
        assert response.status_code == 200, response.text
        return "".join(each["request_id"] for each in response.json()["data"])

    assert await listed() == "cba"
    assert await listed(state="success") == "a"
    assert await listed(label="x:1") == "ba"
    assert await listed(label=["x:1", "y:2"]) == "a"
    assert await listed(label="x:") == ""
    assert await listed(since="2026-03-01T12:00:01Z") == "cb"
    assert await listed(until="2026-03-01T12:00:01Z") == "ba"
    assert await listed(limit=1) == "c"


@pytest.mark.parametrize("label", ["x", ":1"])
async def test_a_label_is_asked_for_as_name_and_value(label: str, admin: httpx.AsyncClient) -> None:
    response = await admin.get("/v1/jobs", params={"label": label})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "label")


async def test_who_is_still_waiting_when_the_process_stops_is_told_so(world: World) -> None:
    """The server cancels what takes too long then; nobody knows whether the brokers have the request."""
    asked, told = asyncio.Event(), list[Message]()
    world.requests = SilentTopic(asked)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {world.key()}".encode()), (b"content-type", b"application/json")],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"request_id": "order-1", "params": {}}'}

    async def send(message: Message) -> None:
        told.append(message)

    request = asyncio.create_task(world.app(scope, receive, send))
    await asked.wait()
    request.cancel()
    await request

    start, body = told
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (503, b"application/problem+json")
    assert int(headers[b"retry-after"]) > 0
    assert "may have happened" in json.loads(body["body"])["detail"]


# ---- cancel
async def test_a_cancel_is_published_under_the_jobs_key(world: World, writer: Writer, admin: httpx.AsyncClient) -> None:
    writer.job(job())

    response = await admin.post("/v1/jobs/order-1/cancel")

    assert (response.status_code, response.json()) == (202, {"request_id": "order-1"})
    assert arrived(world) == CancelArrival("order-1")
    assert world.requests.records[-1][0] == b"order-1"


async def test_cancel_and_repeat_go_where_the_job_lies_whichever_client_published_it(
    world: World, admin: httpx.AsyncClient
) -> None:
    """Clients do not agree which partition a key belongs to, and only one partition knows the job."""
    body = b'{"request_id": "order-1", "params": {}}'
    await submitted(admin, body)
    world.jobs.take(Written(b"order-1", msgspec.json.encode(job()), partition=3))

    await admin.post("/v1/jobs/order-1/cancel")
    await submitted(admin, body)

    assert world.requests.partitions == [None, 3, 3]


async def test_a_job_can_be_canceled_before_a_worker_has_it(world: World, admin: httpx.AsyncClient) -> None:
    request_id = await submitted(admin, b'{"params": {}}')

    assert (await admin.post(f"/v1/jobs/{request_id}/cancel")).status_code == 202
    assert arrived(world) == CancelArrival(request_id)


async def test_an_unknown_job_is_not_canceled(world: World, admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/jobs/order-1/cancel")).status_code == 404
    assert world.requests.records == []


# ---- tenants
async def test_a_tenants_key_sees_and_makes_only_jobs_of_its_own(world: World, writer: Writer) -> None:
    writer.job(job("own"), job("other", labels={"tenant": "other"}), job("nobodys", labels=None))
    async with world.client(Scope.JOBS_READ, Scope.JOBS_WRITE, tenant="acme") as acme:
        listed = (await acme.get("/v1/jobs")).json()["data"]
        await submitted(acme, b'{"params": %s, "labels": {"a": "b"}}' % PARAMS)
        read = arrived(world)
        refused = await acme.post("/v1/jobs", content=b'{"params": {}, "labels": {"tenant": "other"}}')

        assert [each["request_id"] for each in listed] == ["own"]
        assert isinstance(read, JobArrival)
        assert (read.request.labels, read.params) == ({"a": "b", "tenant": "acme"}, PARAMS)
        assert refused.status_code == 403
        for name in ("other", "nobodys"):
            assert (await acme.get(f"/v1/jobs/{name}")).status_code == 404
            assert (await acme.get(f"/v1/jobs/{name}/events")).status_code == 404
            assert (await acme.post(f"/v1/jobs/{name}/cancel")).status_code == 404


# ---- API keys
async def test_a_new_key_lets_its_holder_in_with_its_scopes(world: World, admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/api-keys", json={"name": "ci", "scopes": ["jobs:read", "jobs:read"]})
    made = response.json()

    async with world.client_with({"authorization": f"Bearer {made['key']}"}) as holder:
        assert (await holder.get("/v1/jobs")).status_code == 200
        assert (await holder.get("/v1/endpoints")).status_code == 403
    assert response.status_code == 201
    assert (made["name"], made["scopes"], made["tenant"]) == ("ci", ["jobs:read"], None)
    key, value = world.key_log.records[-1]
    assert key.decode() == made["id"]
    assert made["key"].split("_", 2)[2].encode() not in (value or b"")


async def test_keys_are_listed_without_secret_and_hash(world: World, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/api-keys", json={"name": "ci", "scopes": ["jobs:read"]})).json()

    response = await admin.get("/v1/api-keys")

    record = msgspec.json.decode(world.key_log.records[-1][1] or b"", type=ApiKey)
    assert {each["id"] for each in response.json()["data"]} == set(world.keyring.keys)
    assert made["key"] not in response.text
    assert record.secret_hash not in response.text
    assert "hash" not in response.text


async def test_a_revoked_key_is_gone(world: World, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/api-keys", json={"name": "ci", "scopes": ["jobs:read"]})).json()

    response = await admin.delete(f"/v1/api-keys/{made['id']}")

    assert response.status_code == 204
    assert (await admin.delete(f"/v1/api-keys/{made['id']}")).status_code == 404
    async with world.client_with({"authorization": f"Bearer {made['key']}"}) as holder:
        assert (await holder.get("/v1/jobs")).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["admin"]},
        {"name": "n", "scopes": []},
        {"name": "n", "scopes": ["root"]},
        {"name": "n"},
        {"name": "n", "scopes": ["admin"], "id": "mine"},
    ],
)
async def test_a_wrong_key_is_not_made(body: dict[str, object], world: World, admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/api-keys", json=body)).status_code == 422
    assert world.key_log.records == []


async def test_a_tenants_admin_gives_out_and_sees_keys_of_its_tenant_alone(world: World) -> None:
    """Or it could make itself a key for everything."""
    stranger = world.key().split("_")[1]
    async with world.client(tenant="acme") as acme:
        made = await acme.post("/v1/api-keys", json={"name": "n", "scopes": ["admin"]})
        foreign = await acme.post("/v1/api-keys", json={"name": "n", "scopes": ["admin"], "tenant": "other"})
        listed = (await acme.get("/v1/api-keys")).json()["data"]

        assert made.json()["tenant"] == "acme"
        assert foreign.status_code == 403
        assert {each["tenant"] for each in listed} == {"acme"}
        assert (await acme.delete(f"/v1/api-keys/{stranger}")).status_code == 404


async def test_no_problem_repeats_what_was_sent(admin: httpx.AsyncClient) -> None:
    """It may have been secret."""
    body = {"url": "https://acme.example/hook", "headers": {"authorization": "geheim\n"}}

    response = await admin.post("/v1/endpoints", content=json.dumps(body))

    assert response.status_code == 422
    assert "geheim" not in response.text


@pytest.mark.parametrize("body", [b'{"params": {}, "x": NaN}', b'{"params": {"3": Infinity}}'])
async def test_a_number_that_is_none_in_json_is_told_and_not_published(
    body: bytes, world: World, admin: httpx.AsyncClient
) -> None:
    """Pydantic reads it; workers, and TAMS, would not."""
    response = await admin.post("/v1/jobs", content=body)

    assert response.status_code == 400
    assert world.requests.records == []
