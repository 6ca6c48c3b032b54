"""Records, documents and answers that the tests of the core begin with."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from bridge.core.documents import read_job
from bridge.core.jobs import JobPolicy, accept, grant, submitted
from bridge.core.requests import CancelArrival, JobArrival, read_request
from bridge.core.schedule import BackOff
from bridge.messages import (
    Ambiguous,
    Answer,
    Done,
    Failure,
    InHand,
    JobRecord,
    JobView,
    Missing,
    NotSent,
    Phase,
    Refused,
    Seen,
    Stop,
    TryLater,
    Unauthorized,
)
from bridge.ports import Arrival

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMIT = 100_000
POLICY = JobPolicy(
    max_attempts=3,
    retry=BackOff(initial=2 * SECOND, limit=60 * SECOND),
    resubmit=BackOff(initial=SECOND, limit=60 * SECOND),
    lease=5 * SECOND,
    answer_timeout=15 * SECOND,
    deadline_grace=60 * SECOND,
    missing_grace=60 * SECOND,
)
FAIL_POLICY = JobPolicy(ambiguous="fail")

SUCCESS_DOCUMENT = b"""{"job": {"id": "881417947308949275", "status": "SUCCESS", "credits": 0.8, "successInfo": {
  "images": [{"id": "4dcb663e-eefd-4bd1-8384-98ee3326b7a6", "url": "https://x/881417947447329198_0.png?auth_key=k",
    "expiredIn": "3600", "meta": {"image": {"width": 768, "height": 768}}}],
  "imageExifMetaMap": {"4dcb663e-eefd-4bd1-8384-98ee3326b7a6": {"meta": {"FileSize": "923 kB", "ImageSize": "768x768",
    "MIMEType": "image/png", "Seed": "3363668210"}}},
  "runtime": "13"}}}"""
"""The real success of tams-api.md, as its vendor's users pasted it."""

PAGE_DOCUMENT = b"""{"job": {"id": "string", "status": "DEFAULT", "credits": 0,
"waitingInfo": {"queueRank": "string", "queueLen": "string"}, "failedInfo": {"reason": "string", "code": "DEFAULT"},
"runningInfo": {"processingImages": [{"resourceImage": {"id": "string", "url": "string", "expiredIn": "string",
"meta": {"image": {"format": "string", "width": 0, "height": 0}}}, "progress": 0}],
"workflowFinishItem": {"status": "DEFAULT", "progress": 0, "step": 0, "id": "string", "ctime": "string",
"mtime": "string", "nodes": {}, "finishedNodes": {}}},
"successInfo": {"images": [{"id": "string", "url": "string", "expiredIn": "string",
"meta": {"image": {"format": "string", "width": 0, "height": 0}}}],
"videos": [{"id": "string", "url": "string", "expiredIn": "string",
"meta": {"image": {"format": "string", "width": 0, "height": 0}}}],
"workflowFinishItem": {"status": "DEFAULT", "progress": 0, "step": 0, "id": "string", "ctime": "string",
"mtime": "string", "nodes": {}, "finishedNodes": {}}}}}"""
"""The example of the reference page of `POST /v1/jobs/workflow`."""

FAILURE = Failure(code="http_500", message="out of order", retryable=True, http_status=500)
NO = Failure(code="invalid_argument", message="image: required", http_status=400)

ANSWERS: Mapping[str, Answer] = {
    "in hand": InHand(),
    "done": Done(),
    "refused": Refused(NO),
    "missing": Missing(NO),
    "try later": TryLater(FAILURE, None, throttled=True),
    "unauthorized": Unauthorized(FAILURE),
    "not sent": NotSent(FAILURE),
    "ambiguous": Ambiguous(FAILURE),
}
"""One of every answer that holds no job."""


def document(status: str, job_id: str = "7", **fields: object) -> bytes:
    """What TAMS answers about a job."""
    return msgspec.json.encode({"job": {"id": job_id, "status": status, **fields}})


def view(status: str, job_id: str = "7", **fields: object) -> JobView:
    """A job as read from such an answer."""
    return read_job(document(status, job_id, **fields))


def seen(status: str, job_id: str = "7", **fields: object) -> Seen:
    """The same, as the answer of a call."""
    return Seen(view(status, job_id, **fields))


def waiting(rank: int) -> Seen:
    """A job in the queue."""
    return seen("WAITING", waitingInfo={"queueRank": str(rank), "queueLen": "9"})


def running(progress: float, *done: str) -> Seen:
    """A job under way."""
    item = {"progress": progress, "finishedNodes": dict.fromkeys(done, True)}
    return seen("RUNNING", runningInfo={"workflowFinishItem": item})


def failed(code: str) -> Seen:
    """A job that TAMS gave up."""
    return seen("FAILED", failedInfo={"reason": "no luck", "code": code})


def every_answer() -> dict[str, Answer]:
    """One of every answer there is, jobs in every state included."""
    jobs: dict[str, Answer] = {
        "created": seen("CREATED"),
        "waiting": waiting(3),
        "running": running(0.5, "1"),
        "success": seen("SUCCESS"),
        "canceled": seen("CANCELED"),
        "transitory": failed("TRANSITORY_ERROR"),
        "fatal": failed("FATAL_ERROR"),
        "unknown status": seen("PAUSED"),
    }
    return {**ANSWERS, **jobs}


def request(value: object, *, key: bytes | None = None, offset: int = 0) -> Arrival:
    """A record of the requests topic."""
    return Arrival(offset=offset, key=key, value=msgspec.json.encode(value))


def read(arrival: Arrival) -> JobArrival | CancelArrival:
    """Read it as partition 4 of `tams.requests` would."""
    return read_request(arrival, topic="tams.requests", partition=4, max_bytes=LIMIT)


def job_arrival(request_id: str = "order-1", **fields: object) -> JobArrival:
    """A readable request for a job."""
    arrival = read(request({"request_id": request_id, "params": {"3": {"classType": "KSampler"}}, **fields}))
    assert isinstance(arrival, JobArrival)
    return arrival


def accepted(**fields: object) -> JobRecord:
    """A job that waits for its submit."""
    return accept(job_arrival(**fields), POLICY, NOW).record  # type: ignore[arg-type]  # fields are JSON by nature


def submitting(**fields: object) -> JobRecord:
    """A job whose POST is under way."""
    return grant(accepted(**fields), POLICY, NOW).record


def tracking(**fields: object) -> JobRecord:
    """A job that TAMS holds."""
    return submitted(submitting(**fields), seen("CREATED"), POLICY, NOW, 0.0).record


def in_every_phase() -> dict[Phase, JobRecord]:
    """A job in each phase, with a deadline a minute after its acceptance."""
    held = tracking(deadline_s=60)
    live = {
        Phase.ACCEPTED: accepted(deadline_s=60),
        Phase.SUBMITTING: submitting(deadline_s=60),
        Phase.TRACKING: held,
    }
    ended = {end: replace(held, phase=end, expires_at=NOW + POLICY.dedupe_window) for end in Phase if end.is_terminal}
    return {**live, **ended}


def stopped(record: JobRecord, stop: Stop = Stop.CANCEL) -> JobRecord:
    """The same job, once it is to end early."""
    return replace(record, stop=stop)
