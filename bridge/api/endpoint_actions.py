"""What can be done with an endpoint besides changing it: a new secret, a test event, a pause."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response
from msgspec.structs import replace

from bridge.api import secrets
from bridge.api.access import Its, WebhooksWriter
from bridge.api.endpoint_models import EndpointAnswer, EndpointWithSecret, Rotation, TestAnswer
from bridge.api.endpoints import EndpointId, etag, find, save, shown
from bridge.api.inputs import body_of, takes
from bridge.api.ports import Services
from bridge.api.problems import Problem, may_answer
from bridge.core.registry import EndpointState
from bridge.webhook_messages import ApiKey, Order

TEST_TYPE = "tams.webhook.test"

_ID_BYTES = 8

router = APIRouter(tags=["endpoints"])


@router.post(
    "/v1/endpoints/{endpoint_id}/rotate",
    operation_id="rotateSecret",
    summary="Replace the signing secret",
    responses=may_answer(400, 404, 409, 413, 415, 422),
    openapi_extra=takes(Rotation, optional=True),
)
async def rotate(
    key: WebhooksWriter,
    its: Its,
    endpoint_id: EndpointId,
    asked: Annotated[Rotation, Depends(body_of(Rotation, optional=True))],
    response: Response,
) -> EndpointWithSecret:
    """The answer holds the new secret, which is not shown again; the former ones sign beside it for the overlap."""
    async with its.locks.of(endpoint_id):
        before = find(its, key, endpoint_id)
        secret, newest = secrets.make(its, before.scheme, owner=endpoint_id)
        now = its.clock.now()
        kept = secrets.succeeded(before.secrets, newest, overlap_s=asked.overlap_s, now=now)
        after = replace(before, secrets=kept, changed=now)
        await save(its, after)
    response.headers["etag"] = etag(after)
    secrets.shown_once(response)
    return EndpointWithSecret(**shown(its, after).model_dump(), secret=secret)


@router.post(
    "/v1/endpoints/{endpoint_id}/test",
    operation_id="testEndpoint",
    summary="Send a test event",
    status_code=202,
    responses=may_answer(404, 409),
)
async def test(key: WebhooksWriter, its: Its, endpoint_id: EndpointId) -> TestAnswer:
    """One `tams.webhook.test` event goes to this endpoint the way all events do, whatever types it subscribes to."""
    find(its, key, endpoint_id)
    state = its.registry.state(endpoint_id)
    if state is not EndpointState.ENABLED:
        raise Problem(409, f"the endpoint is {state}: nothing is sent before it is resumed")
    order = _test_order(its, endpoint_id)
    await its.orders.place(order)
    return TestAnswer(event_id=order.event_id, delivery_id=f"{endpoint_id}/{order.event_id}")


@router.post(
    "/v1/endpoints/{endpoint_id}/pause",
    operation_id="pauseEndpoint",
    summary="Send nothing for now",
    responses=may_answer(404),
)
async def pause(key: WebhooksWriter, its: Its, endpoint_id: EndpointId, response: Response) -> EndpointAnswer:
    """Events are kept for it, up to a limit."""
    return await _switch(its, key, endpoint_id, response, paused=True)


@router.post(
    "/v1/endpoints/{endpoint_id}/resume",
    operation_id="resumeEndpoint",
    summary="Send again",
    responses=may_answer(404),
)
async def resume(key: WebhooksWriter, its: Its, endpoint_id: EndpointId, response: Response) -> EndpointAnswer:
    """Also enables an endpoint again that was disabled; what was kept for it is sent."""
    return await _switch(its, key, endpoint_id, response, paused=False)


async def _switch(its: Services, key: ApiKey, endpoint_id: str, response: Response, *, paused: bool) -> EndpointAnswer:
    async with its.locks.of(endpoint_id):
        before = find(its, key, endpoint_id)
        is_disabled = its.registry.state(endpoint_id) is EndpointState.DISABLED
        after = before
        if paused != before.paused or (is_disabled and not paused):
            epoch = before.epoch + 1 if is_disabled and not paused else before.epoch
            after = replace(before, paused=paused, epoch=epoch, changed=its.clock.now())
            await save(its, after)
    response.headers["etag"] = etag(after)
    return shown(its, after)


def _test_order(its: Services, endpoint_id: str) -> Order:
    """Looks like an event of a job that has none."""
    request_id = f"test_{its.random_bytes(_ID_BYTES).hex()}"
    event_id, now = f"{request_id}.1", its.clock.now()
    event = {
        "id": event_id,
        "type": TEST_TYPE,
        "time": now,
        "request_id": request_id,
        "sequence": 1,
        "attempt": 1,
        "labels": {},
    }
    return Order(
        endpoint_id=endpoint_id,
        event_id=event_id,
        type=TEST_TYPE,
        request_id=request_id,
        sequence=1,
        time=now,
        event=msgspec.Raw(msgspec.json.encode(event)),
    )
