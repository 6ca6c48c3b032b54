"""What the API answers when it does not do what was asked: problem documents (RFC 9457)."""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.errors import CannotUnseal, NotConfirmed

MEDIA_TYPE = "application/problem+json"

_RETRY_AFTER_S = 5
_ERRORS_SHOWN = 20
_FIELD_SHOWN = 200
_STOPPING = (
    "this process is being stopped; what was asked may have happened or may yet happen: ask again, "
    "with the same Idempotency-Key or request id"
)

_TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""As RFC 9110 has them; Python's own depend on its version."""

_DESCRIPTIONS: Mapping[int, str] = {
    400: "The body is not JSON.",
    401: "No API key, or one that is not in force.",
    403: "The key lacks the scope, or is another tenant's.",
    404: "There is no such thing, or not for this key.",
    409: "It cannot be done as things stand; the detail says why.",
    412: "It was changed meanwhile: `If-Match` names another revision.",
    413: "The body is too long.",
    415: "The body is said to be something else than JSON.",
    422: "Something in the request is wrong; `errors` names the fields.",
    503: "It cannot be done now; try again later, or configure what the detail names.",
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Where it stands, such as `headers.x-token`.")
    message: str = Field(description="What is wrong with it.")


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="A word for machines, as a URN.")
    title: str = Field(description="What the status means.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong here, and what to do.")
    errors: list[FieldError] | None = Field(None, description="Which fields are wrong, where it is about fields.")


class Problem(Exception):
    """Ends a request with a problem document.

    Args:
        status: HTTP status.
        detail: what is wrong, and what to do next; holds no secret.
        errors: (field, message) pairs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def response(self) -> Response:
        """The answer."""
        title = _TITLES.get(self.status, "Error")
        document: dict[str, object] = {
            "type": f"urn:tams-bridge:problem:{title.lower().replace(' ', '-')}",
            "title": title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"field": field, "message": message} for field, message in self.errors]
        headers = {} if self.headers is None else dict(self.headers)
        return Response(msgspec.json.encode(document), self.status, headers, media_type=MEDIA_TYPE)


def not_found(what: str) -> Problem:
    """404 for something that is not there, or not for this key."""
    return Problem(404, f"there is no {what}")


def wrong_field(field: str, message: str) -> Problem:
    """422 for one field."""
    return Problem(422, f"{field}: {message}", errors=[(field, message)])


def invalid(error: ValidationError) -> Problem:
    """422 for what pydantic found; 400 if it is not even JSON."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, f"the body is not JSON: {_message(found[0])}")
    return _invalid([(_field(each["loc"]), _message(each)) for each in found])


def may_answer(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI's `responses` says of problems; 401, 403 and 503 may come from everywhere."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content}
        for status in sorted({401, 403, 503, *statuses})
    }


def install(app: FastAPI) -> None:
    """Let every error become a problem document."""
    app.add_exception_handler(Problem, _of_ours)
    app.add_exception_handler(NotConfirmed, _not_confirmed)
    app.add_exception_handler(CannotUnseal, _cannot_unseal)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Interruptible)


class Interruptible:
    """Answers those whom a stopping process cannot serve to the end: the server cancels what takes too long then.

    Args:
        app: what serves them; what it has begun to answer stays as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if has_begun or scope["type"] != "http":
                raise
            await Problem(503, _STOPPING, headers={"retry-after": str(_RETRY_AFTER_S)}).response()(scope, receive, send)


async def _of_ours(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return error.response()


async def _not_confirmed(_: Request, error: Exception) -> Response:
    detail = (
        f"the change is not confirmed: {error}; it may have happened or may yet happen: look before you try again, "
        "or repeat it with the same Idempotency-Key or request id"
    )
    return Problem(503, detail, headers={"retry-after": str(_RETRY_AFTER_S)}).response()


async def _cannot_unseal(_: Request, error: Exception) -> Response:
    detail = (
        f"a secret cannot be decrypted: {error} (set BRIDGE_WEBHOOKS__ENCRYPTION_KEYS to hold the key it was made with)"
    )
    return Problem(503, detail, headers={"retry-after": str(_RETRY_AFTER_S)}).response()


async def _of_framework(request: Request, error: Exception) -> Response:
    """An unknown path or method."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods(request)))
        return Problem(405, f"this path takes {allowed}", headers={"allow": allowed}).response()
    detail = "there is no such path: see /openapi.json" if error.status_code == HTTPStatus.NOT_FOUND else error.detail
    return Problem(error.status_code, str(detail), headers=error.headers).response()


def _methods(request: Request) -> set[str]:
    """All that a path takes: several routes may share it, and each knows only its own."""
    routes = request.app.state.routes
    first = next(route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in routes if route.path == first.path for method in route.methods}


async def _of_parameters(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return _invalid([(_field(each["loc"][1:]), _message(each)) for each in error.errors()]).response()


async def _unexpected(_: Request, error: Exception) -> Response:
    """The server logs the error itself; people are told only that there was one."""
    del error
    return Problem(500, "something went wrong here; the log of the API says what").response()


def _invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    field, message = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem(422, f"{field}: {message}{more}", errors=errors[:_ERRORS_SHOWN])


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location)[:_FIELD_SHOWN] or "body"


def _message(found: Mapping[str, Any]) -> str:
    return str(found["msg"]).removeprefix("Value error, ")
