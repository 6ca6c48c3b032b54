"""Deliveries and their attempts, as far as this process remembers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from bridge.api.access import Its, WebhooksReader, WebhooksWriter, sees
from bridge.api.endpoint_actions import TEST_TYPE
from bridge.api.inputs import Page, PagingQuery, SpanQuery, page_of
from bridge.api.ports import Services
from bridge.api.problems import Problem, may_answer, not_found
from bridge.api.replays import new_replay_id, place
from bridge.api.views import STATES, DeliveryState, SeenAttempt, SeenDelivery
from bridge.core.registry import matches_type
from bridge.webhook_messages import ApiKey, AttemptSummary, Delivery, Exchange, Outcome, ReplayOrder

ReceiverId = Annotated[str, Path(description="`ep_…`, or `in_…` for a webhook that was given inside requests.")]
EventId = Annotated[str, Path(description="`<request id>.<sequence>`.")]

router = APIRouter(tags=["deliveries"])


class AttemptLine(BaseModel):
    """One attempt in a few words."""

    number: int = Field(description="From 1; attempts that cost none share the number of the next one.")
    time: datetime
    outcome: Outcome
    status: int = Field(description="HTTP status; 0 without one.")
    error: str
    duration_s: float


class Inline(BaseModel):
    """A webhook that was given inside a request."""

    url: str = Field(description="Without query.")
    tenant: str


class DeliveryAnswer(BaseModel):
    """An event on its way to an endpoint, or what became of it."""

    id: str
    endpoint_id: str
    event_id: str
    type: str
    request_id: str
    sequence: int
    time: datetime = Field(description="Of the event.")
    inline: Inline | None
    ordered: datetime = Field(description="When it was taken in; `since` and `until` are about this.")
    state: DeliveryState
    used: int = Field(description="Attempts that counted.")
    next_at: datetime | None = Field(description="Earliest time of the next attempt.")
    replay_id: str | None
    last_attempt: AttemptLine | None
    dead_reason: str | None
    dead_at: datetime | None


class DeliveryWithAttempts(DeliveryAnswer):
    """A delivery with everything that was tried."""

    attempts: list[AttemptLine]


class RequestHead(BaseModel):
    """What was sent; secrets are masked."""

    headers: dict[str, str]


class ResponseHead(BaseModel):
    """What came back."""

    headers: dict[str, str]
    body: str = Field(description="Its beginning.")


class AttemptAnswer(AttemptLine):
    """One attempt, with what went over the wire."""

    id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    type: str
    request_id: str
    webhook_id: str
    url: str = Field(description="Without query.")
    state: DeliveryState = Field(description="What became of the delivery.")
    request: RequestHead | None
    response: ResponseHead | None


class RedeliveryAnswer(BaseModel):
    """A delivery that was asked for once more."""

    replay_id: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Which deliveries or attempts are wanted."""

    endpoint_id: str | None
    request_id: str | None
    event_id: str | None
    types: Sequence[str]
    state: DeliveryState | None

    def want(self, delivery: Delivery, state: DeliveryState) -> bool:
        """Whether one is among them."""
        return (
            self.endpoint_id in {None, delivery.endpoint_id}
            and self.request_id in {None, delivery.request_id}
            and self.event_id in {None, delivery.event_id}
            and self.state in {None, state}
            and (not self.types or matches_type(self.types, delivery.type))
        )


async def _filters(
    endpoint_id: Annotated[str | None, Query(description="Only those to this endpoint.")] = None,
    request_id: Annotated[str | None, Query(description="Only those about this job.")] = None,
    event_id: Annotated[str | None, Query(description="Only those of this event.")] = None,
    type_: Annotated[
        list[str], Query(alias="type", max_length=20, description="Only of these event types; `*` stands for anything.")
    ] = [],  # noqa: B006  never changed
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
) -> Filters:
    return Filters(endpoint_id, request_id, event_id, type_, state)


FiltersQuery = Annotated[Filters, Depends(_filters)]


@router.get(
    "/v1/deliveries",
    operation_id="listDeliveries",
    summary="List deliveries, the newest first",
    responses=may_answer(422),
)
async def list_(
    key: WebhooksReader, its: Its, paging: PagingQuery, span: SpanQuery, filters: FiltersQuery
) -> Page[DeliveryAnswer]:
    """All that wait, and those that ended lately."""
    request_id = filters.request_id
    if request_id is None and filters.event_id is not None:
        request_id = filters.event_id.rpartition(".")[0]
    items = its.deliveries.newest_first(
        before=paging.before,
        since=span.since,
        until=span.until,
        endpoint_id=filters.endpoint_id,
        request_id=request_id,
    )

    def wanted(seen: SeenDelivery) -> bool:
        return filters.want(seen.delivery, seen.state) and _is_for(its, key, seen.delivery)

    found, following = page_of(items, paging, wanted=wanted)
    return Page(data=[_shown(seen) for seen in found], next=following)


@router.post(
    "/v1/deliveries/{endpoint_id}/{event_id:path}/redeliver",
    operation_id="redeliver",
    summary="Deliver one event again",
    status_code=202,
    responses=may_answer(404, 409),
)
async def redeliver(key: WebhooksWriter, its: Its, endpoint_id: ReceiverId, event_id: EventId) -> RedeliveryAnswer:
    """As a replay of this one event."""
    seen = _find(its, key, endpoint_id, event_id)
    delivery, is_dead = seen.delivery, seen.state is DeliveryState.DEAD
    if seen.state is DeliveryState.PENDING:
        raise Problem(409, "the delivery is pending: it is tried again by itself")
    if not is_dead and (delivery.inline is not None or delivery.type == TEST_TYPE):
        raise Problem(409, "only dead ones can be delivered again, if a request named the URL or it was a test event")
    if delivery.inline is None and endpoint_id not in its.registry.endpoints:
        raise Problem(409, "the endpoint was deleted")
    order = ReplayOrder(
        replay_id=new_replay_id(its),
        endpoint_id=endpoint_id,
        since=delivery.time,
        until=delivery.time,
        failed_only=is_dead,
        event_id=event_id,
        created=its.clock.now(),
    )
    await place(its, order)
    return RedeliveryAnswer(replay_id=order.replay_id)


@router.get(
    "/v1/deliveries/{endpoint_id}/{event_id:path}",
    operation_id="getDelivery",
    summary="Read a delivery",
    responses=may_answer(404),
)
async def get(key: WebhooksReader, its: Its, endpoint_id: ReceiverId, event_id: EventId) -> DeliveryWithAttempts:
    """With all its attempts."""
    seen = _find(its, key, endpoint_id, event_id)
    lines = [_line(attempt) for attempt in seen.delivery.attempts]
    return DeliveryWithAttempts(**_shown(seen).model_dump(), attempts=lines)


@router.get(
    "/v1/attempts", operation_id="listAttempts", summary="List attempts, the newest first", responses=may_answer(422)
)
async def list_attempts(
    key: WebhooksReader, its: Its, paging: PagingQuery, span: SpanQuery, filters: FiltersQuery
) -> Page[AttemptAnswer]:
    """The last ones, to every endpoint."""
    items = its.deliveries.attempts(before=paging.before, since=span.since, until=span.until)

    def wanted(seen: SeenAttempt) -> bool:
        delivery = seen.attempt.delivery
        return filters.want(delivery, STATES[seen.attempt.after]) and _is_for(its, key, delivery)

    found, following = page_of(items, paging, wanted=wanted)
    return Page(data=[_attempt(seen) for seen in found], next=following)


@router.get(
    "/v1/attempts/{attempt_id}", operation_id="getAttempt", summary="Read an attempt", responses=may_answer(404)
)
async def get_attempt(
    key: WebhooksReader, its: Its, attempt_id: Annotated[str, Path(description="As lists give it.")]
) -> AttemptAnswer:
    """With the heads of request and response."""
    seen = its.deliveries.attempt(attempt_id)
    if seen is None or not _is_for(its, key, seen.attempt.delivery):
        raise not_found("attempt of this id; only the last ones are remembered")
    return _attempt(seen)


def _find(its: Services, key: ApiKey, endpoint_id: str, event_id: str) -> SeenDelivery:
    seen = its.deliveries.get(f"{endpoint_id}/{event_id}")
    if seen is None or not _is_for(its, key, seen.delivery):
        raise not_found("delivery of this event to this endpoint; only those that ended lately are remembered")
    return seen


def _is_for(its: Services, key: ApiKey, delivery: Delivery) -> bool:
    """A deleted endpoint is nobody's any more."""
    if key.tenant is None:
        return True
    if delivery.inline is not None:
        return sees(key, delivery.inline.tenant)
    endpoint = its.registry.endpoints.get(delivery.endpoint_id)
    return endpoint is not None and sees(key, endpoint.tenant)


def _shown(seen: SeenDelivery) -> DeliveryAnswer:
    delivery = seen.delivery
    inline = delivery.inline
    return DeliveryAnswer(
        id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        type=delivery.type,
        request_id=delivery.request_id,
        sequence=delivery.sequence,
        time=delivery.time,
        inline=None if inline is None else Inline(url=_without_query(inline.url), tenant=inline.tenant),
        ordered=delivery.ordered,
        state=seen.state,
        used=delivery.used,
        next_at=delivery.next_at if seen.state is DeliveryState.PENDING else None,
        replay_id=delivery.replay_id,
        last_attempt=_line(delivery.attempts[-1]) if delivery.attempts else None,
        dead_reason=seen.dead_reason,
        dead_at=seen.dead_at,
    )


def _line(attempt: AttemptSummary) -> AttemptLine:
    return AttemptLine.model_validate(attempt, from_attributes=True)


def _attempt(seen: SeenAttempt) -> AttemptAnswer:
    record = seen.attempt
    delivery, exchange = record.delivery, record.exchange
    return AttemptAnswer(
        **_line(record.attempt).model_dump(),
        id=seen.id,
        delivery_id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        type=delivery.type,
        request_id=delivery.request_id,
        webhook_id=record.webhook_id,
        url=record.url,
        state=STATES[record.after],
        request=None if exchange is None else RequestHead(headers=exchange.request_headers),
        response=_response(exchange, record.attempt.status),
    )


def _response(exchange: Exchange | None, status: int) -> ResponseHead | None:
    if exchange is None or not status:
        return None
    return ResponseHead(headers=exchange.response_headers, body=exchange.response_body)


def _without_query(url: str) -> str:
    """A query may hold a token."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
