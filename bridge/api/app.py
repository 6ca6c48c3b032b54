"""The HTTP API as one ASGI application, and its description."""

from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from bridge.api import deliveries, endpoint_actions, endpoints, jobs, keys, problems, replays, streams, tenants
from bridge.api.access import Anybody
from bridge.api.endpoint_models import EndpointChange, NewEndpoint, Rotation
from bridge.api.keys import NewApiKey
from bridge.api.ports import Services
from bridge.api.problems import ProblemDocument, may_answer
from bridge.api.replays import NewReplay
from bridge.messages import JobRequest

_DESCRIPTION = """\
Jobs for TAMS in, every change of them out: by webhooks that are registered here, and as server-sent events.
Every request needs `Authorization: Bearer tbk_…`. Lists are read page by page: give `next` as `cursor`.
"""

_PARTS = (endpoints, endpoint_actions, replays, deliveries, tenants, streams, jobs, keys)
"""In this order: a request id may hold slashes, so `jobs` would take what belongs to `streams`."""

_SCHEMAS = (ProblemDocument, NewEndpoint, EndpointChange, Rotation, NewReplay, NewApiKey, JobRequest)
"""What routes read and answer by themselves, so that FastAPI does not know of it."""

_REFERENCE = "#/components/schemas/{model}"

router = APIRouter(tags=["api"])


@router.get("/openapi.json", operation_id="getOpenApi", summary="This description", responses=may_answer())
async def describe(key: Anybody, request: Request) -> dict[str, object]:
    """In OpenAPI 3.1."""
    del key
    document: dict[str, object] = request.app.openapi()
    return document


def build_app(services: Services) -> FastAPI:
    """Put the API together; it starts nothing and needs no lifespan.

    Args:
        services: what it works with.
    """
    app = FastAPI(
        title="tams-bridge",
        version=version("tams-bridge"),
        description=_DESCRIPTION,
        openapi_url=None,  # ours asks for a key
        redirect_slashes=False,
    )
    app.state.services = services
    problems.install(app)
    routers = (router, *(part.router for part in _PARTS))
    for each in routers:
        app.include_router(each)
    app.state.routes = [route for each in routers for route in each.routes]
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]  # as FastAPI's manual has it
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, definitions = models_json_schema([(each, "validation") for each in _SCHEMAS], ref_template=_REFERENCE)
        schemas = document["components"]["schemas"] = document["components"]["schemas"] | definitions["$defs"]
        labels = schemas["JobRequest"]["properties"]["labels"]
        schemas["JobRequest"]["properties"]["labels"] = {"anyOf": [labels, {"type": "null"}]}  # null is absent there
        _leave_out_unused(document)
        app.openapi_schema = document
    return app.openapi_schema


def _leave_out_unused(document: dict[str, Any]) -> None:
    """FastAPI adds its own 422 wherever there is a parameter, even one that takes everything."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
