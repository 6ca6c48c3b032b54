"""Nobody gets in without a key, with a wrong one, or without the scope: every route is walked."""

import re
from collections.abc import Iterable, Iterator

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from bridge.webhook_messages import Scope
from tests.api.fakes import World

OPEN_TO_ALL = {"getOpenApi"}
"""Needs a key, and no scope."""


def routes(found: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        else:
            included = getattr(route, "original_router", None)  # how FastAPI keeps routers that were included
            assert included is not None, f"{route} is not declared the way all routes are"
            yield from routes(included.routes)


def declared(route: APIRoute) -> list[str]:
    """The scopes a route says it needs."""
    return [scope for each in route.dependant.dependencies for scope in each.own_oauth_scopes or ()]


ROUTES = {f"{''.join(route.methods or ())} {route.path_format}": route for route in routes(World().app.routes)}


async def status_of(name: str, world: World, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    method, path = name.split(" ")
    async with world.client_with(headers) as client:
        response = await client.request(method, re.sub(r"\{\w+\}", "x", path), content=b"this is not JSON")
        assert response.headers["content-type"] == "application/problem+json"
        document: dict[str, object] = response.json()
        if response.status_code == 401:
            assert response.headers["www-authenticate"] == "Bearer"
        return response.status_code, document


def test_all_that_is_described_is_walked() -> None:
    described = World().app.openapi()["paths"]

    assert ROUTES.keys() == {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert len(ROUTES) >= 30


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer tbk_", f"Bearer tbk_{'a' * 12}_{'b' * 43}"],
)
async def test_no_route_answers_without_a_key_in_force(name: str, authorization: str | None, world: World) -> None:
    """Before anything else is looked at, the body least of all."""
    headers = {} if authorization is None else {"authorization": authorization}

    status, _ = await status_of(name, world, headers)

    assert status == 401


@pytest.mark.parametrize("name", ROUTES)
async def test_no_route_answers_with_another_secret(name: str, world: World) -> None:
    key = world.key()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")

    status, _ = await status_of(name, world, {"authorization": f"Bearer {wrong}"})

    assert status == 401


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.operation_id not in OPEN_TO_ALL])
async def test_no_route_answers_without_its_scope(name: str, world: World) -> None:
    """A key with every scope but the one that the route needs."""
    (needed,) = declared(ROUTES[name])
    others = [scope for scope in Scope if scope not in {needed, Scope.ADMIN}]

    status, document = await status_of(name, world, {"authorization": f"Bearer {world.key(*others)}"})

    assert status == 403
    assert needed in str(document["detail"])


@pytest.mark.parametrize("name", ROUTES)
async def test_reading_needs_a_scope_to_read_and_changing_one_to_change(name: str) -> None:
    """The table of the contract."""
    method, path = name.split(" ")
    if path == "/openapi.json":
        expected = []
    elif path.startswith("/v1/api-keys"):
        expected = ["admin"]
    else:
        area = "jobs" if path.startswith(("/v1/jobs", "/v1/events")) else "webhooks"
        expected = [f"{area}:{'read' if method == 'GET' else 'write'}"]

    assert declared(ROUTES[name]) == expected


@pytest.mark.parametrize("name", ROUTES)
async def test_nobody_is_turned_away_for_good_while_the_registry_is_being_read(name: str, world: World) -> None:
    """Keys and endpoints are not known yet: a 401 or 404 would be wrong, and a creation might be the second."""
    headers = {"authorization": f"Bearer {world.key()}"}
    world.is_ready = False

    status, document = await status_of(name, world, headers)

    assert status == 503
    assert "starting" in str(document["detail"])


async def test_the_scheme_of_the_header_is_read_in_any_case(world: World) -> None:
    async with world.client_with({"authorization": f"bearer {world.key()}"}) as client:
        assert (await client.get("/v1/endpoints")).status_code == 200


async def test_a_revoked_key_lets_nobody_in_any_more(world: World) -> None:
    async with world.client() as client:
        key_id = client.headers["authorization"].split("_")[1]
        assert (await client.get("/v1/endpoints")).status_code == 200

        world.keyring.apply(key_id.encode(), None)

        assert (await client.get("/v1/endpoints")).status_code == 401


async def test_every_route_is_described_with_its_problems_and_its_name() -> None:
    schema = World().app.openapi()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["operationId"], where
            assert operation["summary"], where
            assert operation["description"], where
            assert {"401", "403", "503"} <= operation["responses"].keys(), where
            for status, response in operation["responses"].items():
                kinds = response.get("content", {}).keys()
                assert int(status) < 400 or kinds == {"application/problem+json"}, where
