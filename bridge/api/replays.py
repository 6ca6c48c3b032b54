"""Replays: past events to an endpoint once more, or for the first time."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from bridge.api.access import Its, WebhooksReader, WebhooksWriter, sees
from bridge.api.endpoints import EndpointId, find
from bridge.api.inputs import Body, Page, PagingQuery, Time, body_of, page_of, takes
from bridge.api.ports import Services
from bridge.api.problems import Problem, may_answer, not_found, wrong_field
from bridge.webhook_messages import ApiKey, Replay, ReplayCancel, ReplayOrder, ReplayState

ID_BYTES = 12

QUEUED = "queued"
"""The state of a replay that no forwarder has taken in yet."""

ReplayId = Annotated[str, Path(description="`rp_…`, as the creation answered.")]

router = APIRouter(tags=["replays"])


class NewReplay(Body):
    """Which events are to be delivered."""

    since: Time = Field(description="Events of this time or later (RFC 3339).")
    until: Time | None = Field(None, description="Events of this time or earlier; until now if left out.")
    failed_only: bool = Field(default=False, description="Only deliveries that were given up.")


class ReplayAnswer(BaseModel):
    """A replay and how far it is."""

    id: str
    endpoint_id: str
    event_id: str | None = Field(description="The only event it is about, if there is one.")
    state: str = Field(description="`queued`, `running`, `done` or `canceled`.")
    since: datetime
    until: datetime
    failed_only: bool
    scanned: int = Field(description="Events looked at.")
    matched: int = Field(description="Events put in line for delivery.")
    progress: float = Field(ge=0, le=1)
    created: datetime
    changed: datetime


@router.post(
    "/v1/endpoints/{endpoint_id}/replays",
    operation_id="createReplay",
    summary="Deliver past events",
    status_code=202,
    responses=may_answer(400, 404, 413, 415, 422),
    openapi_extra=takes(NewReplay),
)
async def create(
    key: WebhooksWriter, its: Its, endpoint_id: EndpointId, asked: Annotated[NewReplay, Depends(body_of(NewReplay))]
) -> ReplayAnswer:
    """Events that the endpoint would want now, also those from before it was registered."""
    find(its, key, endpoint_id)
    now = its.clock.now()
    until = asked.until if asked.until is not None else now
    if asked.since > until:
        raise wrong_field("since", "it lies after `until`" if asked.until is not None else "it lies in the future")
    order = ReplayOrder(
        replay_id=new_replay_id(its),
        endpoint_id=endpoint_id,
        since=asked.since,
        until=until,
        failed_only=asked.failed_only,
        created=now,
    )
    await place(its, order)
    return shown(order)


@router.get(
    "/v1/endpoints/{endpoint_id}/replays",
    operation_id="listReplays",
    summary="List an endpoint's replays, the newest first",
    responses=may_answer(404, 422),
)
async def list_(key: WebhooksReader, its: Its, endpoint_id: EndpointId, paging: PagingQuery) -> Page[ReplayAnswer]:
    """Those that have ended are forgotten after some days."""
    find(its, key, endpoint_id)
    replays = its.deliveries.replays(before=paging.before)
    found, following = page_of(replays, paging, wanted=lambda replay: _order(replay).endpoint_id == endpoint_id)
    return Page(data=[shown(replay) for replay in found], next=following)


@router.get("/v1/replays/{replay_id}", operation_id="getReplay", summary="Read a replay", responses=may_answer(404))
async def get(key: WebhooksReader, its: Its, replay_id: ReplayId) -> ReplayAnswer:
    """How far it is."""
    return shown(_find(its, key, replay_id))


@router.post(
    "/v1/replays/{replay_id}/cancel",
    operation_id="cancelReplay",
    summary="End a replay",
    status_code=202,
    responses=may_answer(404, 409),
)
async def cancel(key: WebhooksWriter, its: Its, replay_id: ReplayId) -> ReplayAnswer:
    """What it has put in line already is still delivered."""
    replay = _find(its, key, replay_id)
    if isinstance(replay, Replay) and replay.state is not ReplayState.RUNNING:
        raise Problem(409, f"the replay is {replay.state} already")
    await its.orders.place(ReplayCancel(replay_id=replay_id, endpoint_id=_order(replay).endpoint_id))
    return shown(replay)


def new_replay_id(its: Services) -> str:
    """An id nobody else has."""
    return f"rp_{its.random_bytes(ID_BYTES).hex()}"


async def place(its: Services, order: ReplayOrder) -> None:
    """Ask for a replay; raises as `Orders.place`."""
    await its.orders.place(order)
    its.deliveries.asked_to_replay(order)


def shown(replay: Replay | ReplayOrder) -> ReplayAnswer:
    """A replay as people see it."""
    order = _order(replay)
    taken = replay if isinstance(replay, Replay) else None
    return ReplayAnswer(
        id=order.replay_id,
        endpoint_id=order.endpoint_id,
        event_id=order.event_id,
        state=taken.state if taken is not None else QUEUED,
        since=order.since,
        until=order.until,
        failed_only=order.failed_only,
        scanned=taken.scanned if taken is not None else 0,
        matched=taken.matched if taken is not None else 0,
        progress=_progress(taken) if taken is not None else 0.0,
        created=order.created,
        changed=taken.changed if taken is not None else order.created,
    )


def _find(its: Services, key: ApiKey, replay_id: str) -> Replay | ReplayOrder:
    replay = its.deliveries.replay(replay_id)
    endpoint = None if replay is None else its.registry.endpoints.get(_order(replay).endpoint_id)
    tenant = None if endpoint is None else endpoint.tenant
    if replay is None or not sees(key, tenant):
        raise not_found("replay of this id")
    return replay


def _order(replay: Replay | ReplayOrder) -> ReplayOrder:
    return replay.order if isinstance(replay, Replay) else replay


def _progress(replay: Replay) -> float:
    """Events looked at, of those and the ones to come."""
    if replay.state is ReplayState.DONE:
        return 1.0
    left = sum(max(0, end - replay.positions.get(place, 0)) for place, end in replay.ends.items())
    return replay.scanned / (replay.scanned + left) if replay.scanned else 0.0
