"""Events as they happen, as server-sent events (WHATWG HTML, "Server-sent events")."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from bridge.api.access import Its, JobsReader, sees
from bridge.api.hub import Listener, Told
from bridge.api.jobs import LabelQuery, RequestId, document, find, read_labels
from bridge.api.ports import Services
from bridge.api.problems import Problem, may_answer
from bridge.api.views import RequestedJob
from bridge.core.registry import TENANT_LABEL, matches_type
from bridge.messages import JobRecord

SNAPSHOT = "snapshot"
"""Name of the event that tells how a job stands, in the form of `GET /v1/jobs/{request_id}`."""

_KEEP_ALIVE = b": still here\n\n"
_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "`<request id>.<sequence>`."},
        "event": {"type": "string", "description": "Event type, or `snapshot`."},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}}}

router = APIRouter(tags=["events"])


class EventStream(StreamingResponse):
    """A stream that its listener leaves with the client, whichever way the client goes."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[bytes], listener: Listener) -> None:
        super().__init__(frames, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._listener = listener

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._listener:
            await super().__call__(scope, receive, send)


@router.get(
    "/v1/events",
    operation_id="followEvents",
    summary="Follow the events of all jobs",
    responses=may_answer(422) | _STREAM,
    status_code=200,
    response_class=Response,
)
async def follow_all(
    key: JobsReader,
    its: Its,
    type_: Annotated[
        list[str], Query(alias="type", max_length=20, description="Only of these types; `*` stands for anything.")
    ] = [],  # noqa: B006  never changed
    label: LabelQuery = [],  # noqa: B006  never changed
) -> EventStream:
    """Every event from now on, as published. A client that does not keep up is cut off, and says so in a comment."""
    labels = read_labels(label)

    def wants(told: Told) -> bool:
        return (
            (not type_ or matches_type(type_, told.type))
            and labels.items() <= told.labels.items()
            and sees(key, told.labels.get(TENANT_LABEL))
        )

    _check_room(its)
    listener = its.hub.listen(wants)
    return EventStream(_all_frames(its, listener), listener)


@router.get(
    "/v1/jobs/{request_id:path}/events",
    operation_id="followJob",
    summary="Follow one job",
    responses=may_answer(404) | _STREAM,
    status_code=200,
    response_class=Response,
)
async def follow_job(key: JobsReader, its: Its, request_id: RequestId) -> EventStream:
    """How the job stands, as an event named `snapshot`, then every event of it; ends after its last one."""
    job = find(its, key, request_id)
    _check_room(its)
    told_so_far = _sequence(job)
    listener = its.hub.listen(
        lambda told: told.request_id == request_id, lately=lambda told: told.sequence > told_so_far
    )
    return EventStream(_job_frames(its, job, listener), listener)


def frame(name: str, data: bytes, event_id: str) -> bytes:
    """One server-sent event; ids of jobs hold no line break."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), name.encode(), lines)


async def _all_frames(its: Services, listener: Listener) -> AsyncIterator[bytes]:
    yield _KEEP_ALIVE
    async for told in listener.events(its.clock, pause_s=its.limits.keep_alive_s):
        yield _KEEP_ALIVE if told is None else frame(told.type, told.value, told.id)
    yield _comment(listener.ended)


async def _job_frames(its: Services, job: JobRecord | RequestedJob, listener: Listener) -> AsyncIterator[bytes]:
    """The ledger is looked at in every pause, too: its record may come before or after the event it belongs to."""
    yield _snapshot(job)
    sequence = _sequence(job)
    if _is_over(job):
        return
    async for told in listener.events(its.clock, pause_s=its.limits.keep_alive_s):
        if told is None:
            now = its.jobs.get(job.request_id)
            if now is None or _is_over(now):
                yield _comment("the job is not known any more") if now is None else _snapshot(now)
                return
            yield _KEEP_ALIVE
        elif told.sequence > sequence:
            sequence = told.sequence
            yield frame(told.type, told.value, told.id)
            if told.is_terminal:
                return
    yield _comment(listener.ended)


def _check_room(its: Services) -> None:
    if its.hub.is_full:
        raise Problem(503, "too many clients follow events already: try again later", headers={"retry-after": "5"})


def _snapshot(job: JobRecord | RequestedJob) -> bytes:
    return frame(SNAPSHOT, document(job), f"{job.request_id}.{_sequence(job)}")


def _sequence(job: JobRecord | RequestedJob) -> int:
    return job.sequence if isinstance(job, JobRecord) else 0


def _is_over(job: JobRecord | RequestedJob) -> bool:
    return isinstance(job, JobRecord) and job.phase.is_terminal


def _comment(text: str | None) -> bytes:
    return f": {text}\n\n".encode()
