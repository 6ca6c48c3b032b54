"""Jobs: submitted, listed, read, canceled. Workers do the work; this publishes requests and shows their ledger."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from bridge.api.access import Its, JobsReader, JobsWriter, sees, tenant_for
from bridge.api.inputs import Page, PagingQuery, SpanQuery, page_of, read_body, takes
from bridge.api.ports import Services
from bridge.api.problems import Problem, invalid, may_answer, not_found, wrong_field
from bridge.api.views import RequestedJob
from bridge.core.addresses import ForbiddenTarget
from bridge.core.layouts import UNREADABLE
from bridge.core.registry import TENANT_LABEL
from bridge.core.requests import COPIED_HEADERS, read_request
from bridge.errors import UnreadableRequest
from bridge.messages import CancelRequest, JobRecord, JobRequest, Phase
from bridge.ports import Arrival
from bridge.webhook_messages import ApiKey

REQUESTED = "requested"
"""The phase of a job that was asked for here and that no worker has accepted yet."""

_ID_BYTES = 12

RequestId = Annotated[str, Path(description="As the request named it, or as the submission answered.")]
LabelQuery = Annotated[
    list[str],
    Query(alias="label", max_length=20, description="Only jobs with this label, as `name:value`; may be repeated."),
]

router = APIRouter(tags=["jobs"])


class SubmissionAnswer(BaseModel):
    """A job that a worker will take up."""

    request_id: str


class JobError(BaseModel):
    """What went wrong."""

    code: str
    message: str
    retryable: bool
    http_status: int | None


class JobAnswer(BaseModel):
    """A job as it stands."""

    request_id: str
    phase: str = Field(description="`requested` until a worker has accepted it.")
    attempt: int
    max_attempts: int
    sequence: int = Field(description="Number of its last event; 0 before the first.")
    labels: dict[str, str]
    accepted_at: datetime | None
    deadline: datetime | None
    expires_at: datetime | None = Field(description="When a finished job is forgotten.")
    job_id: str | None = Field(description="TAMS' id.")
    status: str | None = Field(description="TAMS' word.")
    queue_rank: int | None
    progress: float
    error: JobError | None


class JobWithDocument(JobAnswer):
    """A job with what TAMS said of it last."""

    job: dict[str, object] | None = Field(description="The TAMS job as received; null before it has one.")


@router.post(
    "/v1/jobs",
    operation_id="submitJob",
    summary="Submit a job",
    status_code=202,
    responses=may_answer(400, 413, 415, 422),
    openapi_extra=takes(JobRequest),
)
async def submit(key: JobsWriter, its: Its, request: Request) -> SubmissionAnswer:
    """Once this is answered the request lies in Kafka; a repeat with the same `request_id` is no second job."""
    body = await read_body(request)
    try:
        asked = JobRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None
    _check_webhook(its, asked)
    tenant = tenant_for(key, asked.labels.get(TENANT_LABEL))
    labels = asked.labels if tenant is None else {**asked.labels, TENANT_LABEL: tenant}
    request_id = asked.request_id or f"job_{its.random_bytes(_ID_BYTES).hex()}"
    if request_id != asked.request_id or labels != asked.labels:
        body = _completed(body, request_id, labels)
    _check(body, limit=its.limits.request_bytes)
    await its.requests.publish(request_id, body, _copied(request), partition=its.jobs.partition_of(request_id))
    its.jobs.requested(request_id, labels, its.clock.now())
    return SubmissionAnswer(request_id=request_id)


@router.get("/v1/jobs", operation_id="listJobs", summary="List jobs, the newest first", responses=may_answer(422))
async def list_(
    key: JobsReader,
    its: Its,
    paging: PagingQuery,
    span: SpanQuery,
    state: Annotated[Phase | None, Query(description="Only those in this phase.")] = None,
    label: LabelQuery = [],  # noqa: B006  never changed
) -> Page[JobAnswer]:
    """Those that workers have accepted, by the time they did."""
    labels = read_labels(label)

    def wanted(job: JobRecord) -> bool:
        return (
            state in {None, job.phase}
            and labels.items() <= (job.labels or {}).items()
            and sees(key, (job.labels or {}).get(TENANT_LABEL))
        )

    items = its.jobs.newest_first(before=paging.before, since=span.since, until=span.until)
    found, following = page_of(items, paging, wanted=wanted)
    return Page(data=[shown(job) for job in found], next=following)


@router.post(
    "/v1/jobs/{request_id:path}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    status_code=202,
    responses=may_answer(404),
)
async def cancel(key: JobsWriter, its: Its, request_id: RequestId) -> SubmissionAnswer:
    """Asks for it; its last event says what came of it."""
    find(its, key, request_id)
    value = CancelRequest(cancel=request_id).model_dump_json(by_alias=True).encode()
    await its.requests.publish(request_id, value, {}, partition=its.jobs.partition_of(request_id))
    return SubmissionAnswer(request_id=request_id)


@router.get(
    "/v1/jobs/{request_id:path}",
    operation_id="getJob",
    summary="Read a job",
    responses=may_answer(404),
    response_model=JobWithDocument,
)
async def get(key: JobsReader, its: Its, request_id: RequestId) -> Response:
    """With the TAMS job as received."""
    return Response(document(find(its, key, request_id)), media_type="application/json")


def find(its: Services, key: ApiKey, request_id: str) -> JobRecord | RequestedJob:
    """A job that this key may see.

    Raises:
        Problem: 404.
    """
    job = its.jobs.get(request_id)
    if job is None or not sees(key, (job.labels or {}).get(TENANT_LABEL)):
        raise not_found("job of this request id (yet)")
    return job


def document(job: JobRecord | RequestedJob) -> bytes:
    """A job with its TAMS document, which is passed on byte for byte."""
    fields = shown(job).model_dump(mode="json")
    return msgspec.json.encode({**fields, "job": (isinstance(job, JobRecord) and job.job) or None})


def shown(job: JobRecord | RequestedJob) -> JobAnswer:
    """A job as people see it."""
    if isinstance(job, RequestedJob):
        return JobAnswer(
            request_id=job.request_id,
            phase=REQUESTED,
            attempt=0,
            max_attempts=0,
            sequence=0,
            labels=job.labels,
            accepted_at=None,
            deadline=None,
            expires_at=None,
            job_id=None,
            status=None,
            queue_rank=None,
            progress=0.0,
            error=None,
        )
    fields = msgspec.structs.asdict(job)
    error = job.error
    fields |= {
        "labels": job.labels or {},
        "error": None if error is None else JobError.model_validate(error, from_attributes=True),
    }
    return JobAnswer.model_validate({name: fields[name] for name in JobAnswer.model_fields})


def read_labels(given: Sequence[str]) -> dict[str, str]:
    """Labels as queries name them.

    Raises:
        Problem: 422.
    """
    labels = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name:
            raise wrong_field("label", f"{each!r} is not of the form name:value")
        labels[name] = value
    return labels


def _check_webhook(its: Services, asked: JobRequest) -> None:
    """Its name is resolved and judged when it is dialled; what can be told now is told now."""
    if asked.webhook is None:
        return
    try:
        its.policy.check_url(str(asked.webhook.url))
    except ForbiddenTarget as error:
        raise wrong_field("webhook.url", str(error)) from None


def _completed(body: bytes, request_id: str, labels: Mapping[str, str]) -> bytes:
    """The request under its id and with its tenant; the graph, and what we do not know, stay byte for byte.

    Raises:
        Problem: 400, it is not JSON to those who are stricter than pydantic, which lets NaN pass.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    fields.pop("requestId", None)
    fields["request_id"] = msgspec.Raw(msgspec.json.encode(request_id))
    if labels:
        fields["labels"] = msgspec.Raw(msgspec.json.encode(labels))
    return msgspec.json.encode(fields)


def _check(body: bytes, *, limit: int) -> None:
    """Read it as a worker will: what is accepted here is not refused there."""
    if len(body) > limit:
        raise Problem(413, f"the request has {len(body)} bytes; workers take {limit}")
    try:
        read_request(Arrival(offset=0, key=None, value=body), topic="requests", partition=0, max_bytes=limit)
    except UnreadableRequest as error:
        raise Problem(422, error.detail) from None


def _copied(request: Request) -> dict[str, str]:
    """Headers that every event of the job will carry, too."""
    return {name: value for name, value in request.headers.items() if name in COPIED_HEADERS}
