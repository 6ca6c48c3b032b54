"""What the API takes at the most, how it reads and pages, and how it says no."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from bridge.api import inputs
from bridge.api.ports import ApiLimits
from bridge.errors import CannotUnseal
from tests.api.examples import Writer, delivery, endpoint, fill
from tests.api.fakes import HOOK, World
from tests.api.test_api_access import ROUTES

LIMIT = 2_000
WITH_BODY = [name for name, route in ROUTES.items() if "requestBody" in (route.openapi_extra or {})]


@pytest.fixture
def world() -> World:
    world = World(limits=ApiLimits(body_bytes=LIMIT, page=3))
    fill(world)
    return world


class Chunks:
    """A body without a declared length; counts what was taken of it."""

    def __init__(self, *, count: int, size: int) -> None:
        self.taken = 0
        self._count = count
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            self.taken += self._size
            yield b" " * self._size


def path_of(name: str) -> tuple[str, str]:
    method, path = name.split(" ")
    return method, path.replace("{endpoint_id}", "ep_1").replace("{tenant}", "acme")


# ---- bodies
def test_there_are_routes_with_a_body() -> None:
    assert len(WITH_BODY) == 7
    assert all(isinstance(ROUTES[name], APIRoute) for name in WITH_BODY)


@pytest.mark.parametrize("name", WITH_BODY)
@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 5_000])
async def test_a_body_that_says_it_is_too_long_is_not_read(name: str, length: str, admin: httpx.AsyncClient) -> None:
    method, path = path_of(name)
    body = Chunks(count=1, size=1)

    response = await admin.request(method, path, content=body, headers={"content-length": length})

    assert response.status_code == 413
    assert str(LIMIT) in response.json()["detail"]


@pytest.mark.parametrize("name", WITH_BODY)
@pytest.mark.parametrize("headers", [{}, {"content-length": "7"}, {"content-length": "many"}])
async def test_a_body_is_read_up_to_the_limit_whatever_it_says(
    name: str, headers: dict[str, str], admin: httpx.AsyncClient
) -> None:
    method, path = path_of(name)

    response = await admin.request(method, path, content=Chunks(count=1_000, size=100), headers=headers)

    assert response.status_code == 413


async def test_a_body_of_the_longest_size_is_read(admin: httpx.AsyncClient) -> None:
    body = b'{"url": "%s"}' % HOOK.encode()

    response = await admin.post("/v1/endpoints", content=body + b" " * (LIMIT - len(body)))

    assert response.status_code == 201


@pytest.mark.parametrize("name", WITH_BODY)
async def test_a_body_that_is_not_json_is_a_400(name: str, admin: httpx.AsyncClient) -> None:
    method, path = path_of(name)
    for body in (b"{", b"\xff", b"{'a': 1}", b'{"a": 1}}'):
        response = await admin.request(method, path, content=body)

        assert response.status_code == 400, body
        assert response.json()["title"] == "Bad Request"


@pytest.mark.parametrize("name", WITH_BODY)
@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 422),
        ("application/json; charset=utf-8", 422),
        ("application/cloudevents+json", 422),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("json", 415),
        ("", 415),
    ],
)
async def test_bodies_are_said_to_be_json_if_anything(
    name: str, media_type: str, status: int, admin: httpx.AsyncClient
) -> None:
    method, path = path_of(name)

    response = await admin.request(method, path, content=b"[]", headers={"content-type": media_type})

    assert response.status_code == status


async def test_an_empty_body_stands_for_the_defaults_where_all_have_one(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/endpoints/ep_1/rotate")).status_code == 200
    assert (await admin.patch("/v1/endpoints/ep_1")).status_code == 400


@pytest.mark.parametrize("overlap", [-1, 31 * 86_400, "1", None, True])
async def test_an_overlap_is_a_number_of_seconds_up_to_a_month(overlap: object, admin: httpx.AsyncClient) -> None:
    for path in ("endpoints/ep_1", "tenants/acme/secret"):
        response = await admin.post(f"/v1/{path}/rotate", json={"overlap_s": overlap})

        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "overlap_s"


# ---- pages
@pytest.mark.parametrize("path", ["endpoints", "endpoints/ep_1/replays", "deliveries", "attempts", "jobs", "api-keys"])
async def test_every_list_pages_the_same_way(path: str, world: World, admin: httpx.AsyncClient) -> None:
    url = f"/v1/{path}"
    world.key(), world.key()
    whole: list[dict[str, Any]] = (await admin.get(url)).json()["data"]
    collected, query = [], {"limit": "1"}
    while True:
        page = (await admin.get(url, params=query)).json()
        collected += page["data"]
        if page["next"] is None:
            break
        query = {"limit": "1", "cursor": page["next"]}

    assert len(whole) > 1
    assert collected[: len(whole)] == whole
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"cursor": "x"}, {"cursor": ""}, {"cursor": "bnVsbA"}):
        response = await admin.get(url, params=wrong)
        assert response.status_code == 422, wrong
        assert response.json()["errors"][0]["field"] == next(iter(wrong))


async def test_a_page_never_holds_more_than_the_server_gives(world: World, admin: httpx.AsyncClient) -> None:
    for number in range(9):
        Writer(world).endpoint(endpoint(f"ep_{number}"))

    page = (await admin.get("/v1/endpoints", params={"limit": 1_000_000})).json()

    assert len(page["data"]) == 3
    assert page["next"]


async def test_a_page_that_is_filtered_down_to_nothing_costs_so_much_and_no_more(
    world: World, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor goes on from where the search stopped."""
    monkeypatch.setattr(inputs, "_LOOKED_AT", 10)
    Writer(world).pending(*(delivery(f"x.{number}") for number in range(1, 40)))
    Writer(world).pending(delivery("rare.1", type="rare"))
    query: dict[str, str] = {"type": "rare"}
    pages = 0
    while (page := (await admin.get("/v1/deliveries", params=query)).json())["data"] == []:
        query["cursor"] = page["next"]
        pages += 1

    assert [each["event_id"] for each in page["data"]] == ["rare.1"]
    assert 1 <= pages <= 5


# ---- problems
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/endpoints/", "/v2/endpoints", "/docs", "/redoc", "/v1/jobsx"])
async def test_an_unknown_path_is_a_problem_too(path: str, admin: httpx.AsyncClient) -> None:
    response = await admin.get(path)

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json().keys() == {"type", "title", "status", "detail"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/endpoints", "GET, POST"),
        ("PUT", "/v1/endpoints/ep_1", "DELETE, GET, PATCH"),
        ("POST", "/v1/attempts", "GET"),
        ("GET", "/v1/endpoints/ep_1/rotate", "POST"),
        ("DELETE", "/v1/jobs/a/cancel", "POST"),
        ("DELETE", "/v1/jobs/a", "GET"),
        ("OPTIONS", "/openapi.json", "GET"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_told_those_it_takes(
    method: str, path: str, allowed: str, admin: httpx.AsyncClient
) -> None:
    response = await admin.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_bug_is_a_500_that_shows_nothing_of_the_inside(world: World, admin: httpx.AsyncClient) -> None:
    world.registry_log.errors.append(RuntimeError("secret insides"))

    response = await admin.post("/v1/endpoints", json={"url": HOOK})

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "insides" not in response.text


async def test_a_secret_that_cannot_be_opened_is_a_503_that_names_the_setting(
    world: World, admin: httpx.AsyncClient
) -> None:
    world.registry_log.errors.append(CannotUnseal("no key fits"))

    response = await admin.post("/v1/endpoints", json={"url": HOOK})

    assert response.status_code == 503
    assert "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS" in response.json()["detail"]


async def test_many_errors_are_told_together(admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/endpoints", json={"rate": -1, "timeout_s": 0, "x": 1})

    problem = response.json()
    assert {each["field"] for each in problem["errors"]} == {"url", "rate", "timeout_s", "x"}
    assert problem["detail"].endswith("(and 3 more)")


async def test_a_field_of_endless_name_is_named_by_its_beginning(admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/api-keys", json={"x" * 1_500: 1})

    assert response.status_code == 422
    assert "x" * 200 in {each["field"] for each in response.json()["errors"]}
    assert "x" * 201 not in response.text


async def test_the_description_is_openapi_and_names_no_other_host(admin: httpx.AsyncClient) -> None:
    response = await admin.get("/openapi.json")

    document = response.json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "tams-bridge"
    assert "servers" not in document
    assert "http://" not in response.text.replace("http://json-schema", "")
