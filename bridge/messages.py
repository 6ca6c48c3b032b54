"""What travels: requests in, job events out, the ledger's records, and what TAMS answered.

People write requests, so pydantic reads them and says what is wrong. The bridge writes the rest, many times a job,
so msgspec does that, and the documents of others (`params`, `job`) pass through as the bytes they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Self

import msgspec
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    JsonValue,
    ModelWrapValidatorHandler,
    model_validator,
)

NOTHING = msgspec.Raw()
"""Stands for a JSON document that is not there; false in conditions, left out when written."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment in time; written without its zone it would be none."""

Count = Annotated[int, msgspec.Meta(ge=0)]

REQUEST_ID_MAX_BYTES = 255
"""Longest request id, in UTF-8 bytes: it becomes a record key, a header and part of event ids."""


class Phase(StrEnum):
    """Where a job stands in the bridge; the moves between phases are the table in `bridge.core.jobs`."""

    ACCEPTED = "accepted"
    SUBMITTING = "submitting"
    TRACKING = "tracking"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """True when no further change can come."""
        return self in TERMINAL_EVENT


class EventType(StrEnum):
    """The types of job events; a terminal one shares its last word with the phase it ends in."""

    ACCEPTED = "tams.job.accepted"
    SUBMITTED = "tams.job.submitted"
    WAITING = "tams.job.waiting"
    RUNNING = "tams.job.running"
    RETRYING = "tams.job.retrying"
    DUPLICATE = "tams.job.duplicate"
    SUCCESS = "tams.job.success"
    FAILED = "tams.job.failed"
    CANCELED = "tams.job.canceled"
    REJECTED = "tams.job.rejected"
    EXPIRED = "tams.job.expired"
    UNKNOWN = "tams.job.unknown"

    @property
    def is_terminal(self) -> bool:
        """True for the one event that ends an accepted request."""
        return self in TERMINAL_EVENT.values()


TERMINAL_EVENT: Mapping[Phase, EventType] = {
    Phase.SUCCESS: EventType.SUCCESS,
    Phase.FAILED: EventType.FAILED,
    Phase.CANCELED: EventType.CANCELED,
    Phase.REJECTED: EventType.REJECTED,
    Phase.EXPIRED: EventType.EXPIRED,
    Phase.UNKNOWN: EventType.UNKNOWN,
}


class Stop(StrEnum):
    """Why a job is to end before TAMS has finished it."""

    CANCEL = "cancel"
    DEADLINE = "deadline"


class TamsStatus(StrEnum):
    """The job statuses TAMS is known to report (reference: tams-api.md, "The job"); any other word counts as live."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class DeadLetterReason(StrEnum):
    """Why a record of the requests or the dispatch topic was parked; the value of the header `dlq-reason`."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    INVALID_REQUEST_ID = "invalid_request_id"
    UNKNOWN_REQUEST = "unknown_request"
    INVALID_DISPATCH = "invalid_dispatch"


def is_request_id(text: str) -> bool:
    """Whether `text` may serve as a request id: printable, without line breaks, not too long."""
    return bool(text) and text.isprintable() and len(text.encode()) <= REQUEST_ID_MAX_BYTES


def _printable(text: str) -> str:
    if not is_request_id(text):
        message = (
            f"a request id is 1 to {REQUEST_ID_MAX_BYTES} bytes of printable text (no line break, no control character)"
        )
        raise ValueError(message)
    return text


NORMAL_PRIORITY, HIGHEST_PRIORITY = 4, 9

RequestId = Annotated[str, AfterValidator(_printable)]

LABELS_MAX_BYTES = 16 * 1024
"""Longest labels, names and values together, in UTF-8 bytes: every event and record of the job carries them."""


def _short(labels: dict[str, str]) -> dict[str, str]:
    if sum(len(name.encode()) + len(value.encode()) for name, value in labels.items()) > LABELS_MAX_BYTES:
        message = f"labels are at most {LABELS_MAX_BYTES} bytes together"
        raise ValueError(message)
    return labels


_UNKNOWN_FIELDS_TOLD = 20
_UNKNOWN_FIELD_SHOWN = 100


EVENT_PATTERNS_MAX, EVENT_PATTERN_MAX = 50, 100
"""Most patterns of a webhook, and characters of each: all are gone through at every event."""


class Webhook(BaseModel):
    """A webhook given inside a request, kept with the job for the forwarder.

    Args:
        url: where this job's events are to be posted.
        events: which of them, by the last word of the event type.
    """

    model_config = ConfigDict(frozen=True)

    url: HttpUrl
    events: Annotated[
        tuple[Annotated[str, Field(max_length=EVENT_PATTERN_MAX)], ...],
        Field(max_length=EVENT_PATTERNS_MAX, fail_fast=True),
    ] = ("success", "failed")


class Request(BaseModel):
    """Base of both requests: null means absent, as in proto3 JSON, and unknown fields are kept aside by name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", populate_by_name=True)

    @model_validator(mode="wrap")
    @classmethod
    def _null_is_absent(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if item is not None}
        return handler(value)

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Names that mean nothing to the bridge: ignored, and the first of them reported in the accepted event."""
        names = sorted(self.model_extra or ())[:_UNKNOWN_FIELDS_TOLD]
        return tuple(name[:_UNKNOWN_FIELD_SHOWN] for name in names)


class JobRequest(Request):
    """A job to run; lower camel and snake case names are both read.

    Args:
        params: the node graph, handed to TAMS as it is.
        request_id: the caller's id; without it the record's key, its `ce_id` header or its position serves.
        labels: free text pairs, copied to every event of the job.
        webhook: an endpoint for this job's events alone.
        deadline_s: seconds from acceptance after which the job is given up (`expired`).
        max_attempts: how often the job may be submitted in all when TAMS fails it with TRANSITORY_ERROR.
        priority: 0 to 9; while jobs wait to be submitted, a higher one goes first (4 is normal, as in JMS).
    """

    params: dict[str, JsonValue]
    request_id: RequestId | None = Field(default=None, validation_alias=AliasChoices("request_id", "requestId"))
    labels: Annotated[dict[str, str], AfterValidator(_short)] = Field(default_factory=dict)
    webhook: Webhook | None = Field(default=None, strict=False)
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        allow_inf_nan=False,
        validation_alias=AliasChoices("deadline_s", "deadlineS"),
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=100, validation_alias=AliasChoices("max_attempts", "maxAttempts")
    )
    priority: int | None = Field(default=None, ge=0, le=HIGHEST_PRIORITY)


class CancelRequest(Request):
    """A job to give up.

    Args:
        cancel: its request id; the record must carry it as its key, too, to reach the partition that owns the job.
    """

    cancel: RequestId


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why something did not work, for people and machines; the field `error` of an event.

    Args:
        code: a stable word: TAMS' own code where it gave one (`TRANSITORY_ERROR`, `invalid_samples`), else ours.
        message: a sentence; holds no secret.
        retryable: whether the same request, sent again, may work.
        http_status: the answer's status, if an answer came.
        details: what TAMS said in full, as JSON.
    """

    code: str
    message: str
    retryable: bool = False
    http_status: int | None = None
    details: msgspec.Raw = NOTHING


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One job as the ledger keeps it; the graph (`params`) lies in a record of its own, written once.

    Args:
        request_id: the job's id, unique within the dedupe window.
        phase: where it stands.
        sequence: number of the last event published for it; the next one has `sequence + 1`.
        attempt: number of the attempt under way, from 1.
        max_attempts: how many there may be.
        priority: 0 to 9, of its submit.
        kind: of its graph, for what is expected of its run time.
        accepted_at: when the request was accepted (UTC).
        seed: makes the ids sent to TAMS unique to this acceptance of the request id.
        tries: how often the submit of this attempt was begun without a usable answer.
        not_before: earliest time of the next submit.
        lease_until: until when the POST of a `submitting` job may begin.
        deadline: when the job is to be given up.
        doubt: whether TAMS may hold a job of this attempt although no answer said so.
        stop: set once the job is to end early, and why.
        stop_told: whether TAMS has answered the cancel that follows from `stop`.
        missing_since: since when TAMS says it does not know the job.
        job_id: TAMS' id of the job.
        submitted_at: when TAMS took this attempt.
        running_at: when it was first seen running.
        seen_at: when a look last changed something.
        status: TAMS' status word at the last change.
        queue_rank: place in the queue then.
        progress: 0 to 1, then.
        finished_nodes: how many nodes of the graph were done then.
        job: the document TAMS gave at the last change, as received.
        error: why the job ended, or why it is tried again.
        expires_at: when a finished job may be forgotten.
        labels: the request's labels.
        headers: trace and correlation headers of the request, copied to its events.
        webhook: the request's webhook as JSON.
        version: of this layout.
    """

    request_id: str
    phase: Phase
    sequence: Count = 0
    attempt: Count = 1
    max_attempts: Count = 1
    priority: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_PRIORITY)] = NORMAL_PRIORITY
    kind: str = ""
    accepted_at: Instant
    seed: str = ""
    tries: Count = 0
    not_before: Instant | None = None
    lease_until: Instant | None = None
    deadline: Instant | None = None
    doubt: bool = False
    stop: Stop | None = None
    stop_told: bool = False
    missing_since: Instant | None = None
    job_id: str | None = None
    submitted_at: Instant | None = None
    running_at: Instant | None = None
    seen_at: Instant | None = None
    status: str | None = None
    queue_rank: int | None = None
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    finished_nodes: Count = 0
    job: msgspec.Raw = NOTHING
    error: Failure | None = None
    expires_at: Instant | None = None
    labels: dict[str, str] | None = None
    headers: dict[str, str] | None = None
    webhook: msgspec.Raw = NOTHING
    version: int = 1


class JobEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One change of a job, as published; `id` and `sequence` are the same after any crash and replay.

    Args:
        id: `<request id>.<sequence>`.
        type: what happened.
        time: when the bridge learned of it (UTC).
        request_id: the request this belongs to.
        sequence: from 1, without gap or repeat within a request.
        attempt: which attempt this is about.
        labels: the request's labels.
        job: the TAMS job, as received.
        error: what went wrong, if something did.
        unknown_fields: names in the request that were ignored (accepted events only).
    """

    id: str
    type: EventType
    time: Instant
    request_id: str
    sequence: int
    attempt: int
    labels: dict[str, str]
    job: msgspec.Raw = NOTHING
    error: Failure | None = None
    unknown_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What the bridge reads from a TAMS job document.

    Args:
        job_id: TAMS' id.
        status: the status word as received; `DEFAULT` if there was none.
        queue_rank: place in the queue; 0 if a waiting job has none (proto3 leaves zero out), None if not waiting.
        progress: 0 to 1.
        finished_nodes: how many nodes of the graph are done.
        failure: set when the status is FAILED.
        document: the whole document as received.
    """

    job_id: str
    status: str
    queue_rank: int | None
    progress: float
    finished_nodes: int
    failure: Failure | None
    document: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Seen:
    """TAMS answered with the job."""

    view: JobView


@dataclass(frozen=True, slots=True)
class InHand:
    """202: TAMS has the request and has not processed it; the same request is to be repeated."""


@dataclass(frozen=True, slots=True)
class Done:
    """TAMS confirmed a cancel."""


@dataclass(frozen=True, slots=True)
class Refused:
    """TAMS says no, for good."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Missing:
    """TAMS does not know this job."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class TryLater:
    """TAMS did nothing and wants to be asked again later.

    Args:
        failure: what it said.
        retry_after: how long it asked us to wait, if it said.
        throttled: True for 429: the rate was exceeded.
    """

    failure: Failure
    retry_after: timedelta | None
    throttled: bool


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """Our credentials are wrong: nothing can work before the operator changes them."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotSent:
    """It is proven that not one byte of the request reached TAMS."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The request may or may not have been carried out: time-out, cut connection, 5xx, unreadable answer."""

    failure: Failure


Answer = Seen | InHand | Done | Refused | Missing | TryLater | Unauthorized | NotSent | Ambiguous
"""Everything a call to TAMS can come to; adapters never raise for what the other side did."""
