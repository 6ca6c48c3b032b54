"""Reading requests: bodies up to a limit, pages, and the marks between them."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bridge.api.access import Its, services
from bridge.api.problems import Problem, invalid, wrong_field
from bridge.core.timeline import Mark

_WITH_A_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d")

_LENGTH_DIGITS = 20
"""Of a length that is read: more than memories hold, and less than Python refuses to make a number of."""

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

_LOOKED_AT = 20_000
"""Items looked at for one page, which may so come with fewer of them than asked for."""


class Body(BaseModel):
    """Base of bodies: a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T] = Field(description="The items; may be fewer than `limit` although there are more.")
    next: str | None = Field(description="Give it as `cursor` to go on; null at the end of the list.")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page is wanted.

    Args:
        limit: most items.
        before: where the last page ended.
    """

    limit: int
    before: Mark | None


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, both included."""

    since: datetime | None
    until: datetime | None


async def _paging(
    its: Its,
    limit: Annotated[
        int, Query(ge=1, description="Most items; more than the server gives counts as what it gives.")
    ] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Paging:
    return Paging(min(limit, its.limits.page), None if cursor is None else _read_cursor(cursor))


def _written_out(text: object) -> object:
    """A mere number would count as a time, too."""
    if not isinstance(text, str) or _WITH_A_DATE.match(text) is None:
        message = "it must be a time such as 2026-11-24T10:15:04Z"
        raise ValueError(message)
    return text


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written_out)]


async def _span(
    since: Annotated[Time | None, Query(description="Not before this time (RFC 3339).")] = None,
    until: Annotated[Time | None, Query(description="Not after this time (RFC 3339).")] = None,
) -> Span:
    return Span(since, until)


PagingQuery = Annotated[Paging, Depends(_paging)]
SpanQuery = Annotated[Span, Depends(_span)]


def page_of(
    items: Iterator[tuple[Mark, T]], paging: Paging, *, wanted: Callable[[T], bool] = lambda _: True
) -> tuple[list[T], str | None]:
    """Some items, and the cursor to go on with; None at the end."""
    found: list[T] = []
    for looked_at, (mark, item) in enumerate(items, start=1):
        if wanted(item):
            found.append(item)
        if len(found) == paging.limit or looked_at == _LOOKED_AT:
            return found, _write_cursor(mark) if next(items, None) is not None else None
    return found, None


def sorted_page(
    items: Sequence[tuple[Mark, T]], paging: Paging, *, wanted: Callable[[T], bool]
) -> tuple[list[T], str | None]:
    """As `page_of`, of items in any order."""
    newest_first = sorted(items, key=lambda each: each[0], reverse=True)
    before = paging.before
    left = (each for each in newest_first if before is None or each[0] < before)
    return page_of(left, paging, wanted=wanted)


async def read_body(request: Request) -> bytes:
    """The body, if it is JSON and not too long; not one byte beyond the limit is kept.

    Raises:
        Problem: 413 or 415.
    """
    limit = services(request).limits.body_bytes
    _check_media_type(request.headers.get("content-type"))
    body = bytearray()
    if _declared_length(request) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise Problem(413, f"the body is longer than {limit} bytes")


def body_of(model: type[ModelT], *, optional: bool = False) -> Callable[[Request], Awaitable[ModelT]]:
    """A dependency that reads a body as this model; stands after the caller, so that strangers have nothing read.

    Args:
        model: of the body.
        optional: whether no body at all is an empty object.
    """

    async def read(request: Request) -> ModelT:
        body = await read_body(request)
        try:
            return model.model_validate_json(body or b"{}" if optional else body)
        except ValidationError as error:
            raise invalid(error) from None

    return read


def takes(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any]:
    """What FastAPI's `openapi_extra` says of a body that `body_of` reads."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": not optional, "content": {"application/json": {"schema": schema}}}}


def _check_media_type(given: str | None) -> None:
    if given is None:
        return
    message = Message()
    message["content-type"] = given
    subtype = message.get_content_subtype()
    if message.get_content_maintype() != "application" or (subtype != "json" and not subtype.endswith("+json")):
        raise Problem(415, "bodies are JSON: send `Content-Type: application/json`")


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared[:_LENGTH_DIGITS]) if declared.isdecimal() else 0


def _write_cursor(mark: Mark) -> str:
    return urlsafe_b64encode(msgspec.json.encode(mark)).decode().rstrip("=")


def _read_cursor(cursor: str) -> Mark:
    try:
        time, item_id = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=Mark)
    except (ValueError, msgspec.DecodeError):
        time, item_id = None, ""
    if time is None or time.tzinfo is None:
        raise wrong_field("cursor", "it is not one that a page gave as `next`")
    return time, item_id
