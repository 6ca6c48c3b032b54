"""The life of one job: its phases, the allowed moves, and the functions that make them.

A job is at most one of these at a time; ACCEPTED means that TAMS holds nothing of the present attempt, SUBMITTING that
it may, TRACKING that it does and under which id.

    ACCEPTED ──grant──► SUBMITTING ──job──► TRACKING ──look──► SUCCESS | FAILED | CANCELED
       ▲  ▲                 │  │               │
       │  └──nothing sent───┘  │               │
       └──────TRANSITORY_ERROR─│───────────────┘        any of the three ──► EXPIRED (deadline) | CANCELED | UNKNOWN
                               └──refused──► REJECTED

Every function takes the record and returns a `Step`: the record after it, and the events that tell of it. What arrives
late or twice changes nothing and gives the same record back. A step is only real once the ledger has it.
Source: design.md, "The life of a job".
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, assert_never
from uuid import UUID, uuid5

import msgspec
from msgspec.structs import replace

from bridge.core.answers import ALREADY_EXISTS
from bridge.core.requests import JobArrival
from bridge.core.schedule import BackOff
from bridge.messages import (
    NORMAL_PRIORITY,
    NOTHING,
    TERMINAL_EVENT,
    Ambiguous,
    Answer,
    Done,
    EventType,
    Failure,
    InHand,
    JobEvent,
    JobRecord,
    JobView,
    Missing,
    NotSent,
    Phase,
    Refused,
    Seen,
    Stop,
    TamsStatus,
    TryLater,
    Unauthorized,
)

ENDS = frozenset(TERMINAL_EVENT)

MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.ACCEPTED: frozenset({Phase.SUBMITTING, Phase.CANCELED, Phase.EXPIRED}),
    Phase.SUBMITTING: frozenset(
        {
            Phase.SUBMITTING,
            Phase.ACCEPTED,
            Phase.TRACKING,
            Phase.REJECTED,
            Phase.CANCELED,
            Phase.EXPIRED,
            Phase.UNKNOWN,
        }
    ),
    Phase.TRACKING: frozenset(
        {
            Phase.TRACKING,
            Phase.ACCEPTED,
            Phase.SUCCESS,
            Phase.FAILED,
            Phase.CANCELED,
            Phase.EXPIRED,
            Phase.UNKNOWN,
        }
    ),
    **{end: frozenset() for end in ENDS},
}
"""Which phase may follow which. Nothing follows an end."""

STATUS_ORDER: dict[str | None, int] = {
    TamsStatus.CREATED: 1,
    TamsStatus.PENDING: 2,
    TamsStatus.WAITING: 2,
    TamsStatus.RUNNING: 3,
}
"""Live statuses of TAMS in the order a job goes through them; a look that shows an earlier one is late."""

_RETRY = BackOff(initial=timedelta(seconds=2), limit=timedelta(minutes=1))
_RESUBMIT = BackOff(initial=timedelta(seconds=1), limit=timedelta(minutes=1))
_REQUEST_ID_SPACE = UUID("6f0d6f3c-3a55-4c52-9f2b-6a1f5f0c1d7e")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicy:
    """What the user may choose about the life of jobs.

    Args:
        max_attempts: attempts for a request that names none.
        retry: pause before the next attempt after a TRANSITORY_ERROR.
        resubmit: pause before a submit is tried again.
        ambiguous: what to do with a submit whose outcome cannot be known.
        lease: how long after its intent was decided a POST may begin.
        answer_timeout: longest time a POST may be under way.
        deadline: for a request that names none.
        deadline_grace: how long after its deadline a job may still end by TAMS' word.
        missing_grace: how long TAMS may say that it does not know a job before it is given up.
        dedupe_window: how long a finished job is remembered.
    """

    max_attempts: int = 3
    retry: BackOff = _RETRY
    resubmit: BackOff = _RESUBMIT
    ambiguous: Literal["repeat", "fail"] = "repeat"
    lease: timedelta = timedelta(seconds=5)
    answer_timeout: timedelta = timedelta(seconds=15)
    deadline: timedelta | None = None
    deadline_grace: timedelta = timedelta(seconds=60)
    missing_grace: timedelta = timedelta(seconds=60)
    dedupe_window: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Step:
    """A record after something happened, and the events that tell of it."""

    record: JobRecord
    events: tuple[JobEvent, ...] = ()


class ForbiddenMove(Exception):
    """A bug: a step asked for a move that `MOVES` does not have."""


def accept(arrival: JobArrival, policy: JobPolicy, now: datetime) -> Step:
    """Begin the life of a request that was not seen before."""
    request = arrival.request
    deadline = policy.deadline if request.deadline_s is None else timedelta(seconds=request.deadline_s)
    webhook = request.webhook
    record = JobRecord(
        request_id=arrival.request_id,
        phase=Phase.ACCEPTED,
        max_attempts=request.max_attempts or policy.max_attempts,
        priority=NORMAL_PRIORITY if request.priority is None else request.priority,
        kind=arrival.kind,
        accepted_at=now,
        seed=f"{arrival.position}@{now.timestamp():.3f}",
        deadline=None if deadline is None else now + deadline,
        labels=request.labels or None,
        headers=arrival.headers or None,
        webhook=NOTHING if webhook is None else msgspec.Raw(webhook.model_dump_json().encode()),
    )
    return _tell(record, EventType.ACCEPTED, now, unknown_fields=request.unknown_fields)


def duplicate(record: JobRecord, now: datetime) -> Step:
    """Tell that a request id came again; the job goes on, or stays ended, as it is."""
    return _tell(record, EventType.DUPLICATE, now, error=record.error)


def tams_request_id(record: JobRecord) -> str:
    """The `requestId` of the present attempt: the same after every crash, another for every attempt and acceptance.

    A request id alone would not do: used again after the dedupe window, or on a cluster made anew, it would make TAMS
    answer with a job of the past.
    """
    return str(uuid5(_REQUEST_ID_SPACE, f"{record.request_id}\n{record.seed}\n{record.attempt}"))


def restore(record: JobRecord, policy: JobPolicy, now: datetime) -> Step:
    """A record as its new owner must see it: a POST begun by the former owner may have been, or be, on its way."""
    if record.phase is not Phase.SUBMITTING or record.lease_until is None:
        return Step(record)
    if policy.ambiguous == "fail":
        message = "the worker stopped while it submitted the job: TAMS may have taken it, and may charge for it"
        return _end(record, Phase.UNKNOWN, policy, now, Failure(code="submit_interrupted", message=message))
    again = record.lease_until + policy.answer_timeout
    return Step(_move(record, Phase.SUBMITTING, doubt=True, not_before=again, lease_until=None))


def grant(record: JobRecord, policy: JobPolicy, now: datetime) -> Step:
    """Write down the intent to submit: from here until an answer comes, TAMS may hold the job.

    Without effect while a POST is under way, so that a turn given twice makes no second one.
    """
    if record.phase not in {Phase.ACCEPTED, Phase.SUBMITTING} or record.lease_until is not None:
        return Step(record)
    return Step(
        _move(record, Phase.SUBMITTING, tries=record.tries + 1, not_before=None, lease_until=now + policy.lease)
    )


def submitted(  # noqa: C901, PLR0911  one case for each answer
    record: JobRecord, answer: Answer, policy: JobPolicy, now: datetime, chance: float
) -> Step:
    """Take in what became of a submit.

    Args:
        record: the job; other phases than SUBMITTING are left alone.
        answer: what TAMS, or the network, said.
        policy: what the user chose.
        now: the wall clock.
        chance: uniform in [0, 1), for the jitter.
    """
    if record.phase is not Phase.SUBMITTING:
        return Step(record)
    again = now + policy.resubmit.pause(record.tries, chance)
    match answer:
        case Seen(view):
            return _created(record, view, policy, now, chance)
        case InHand():
            return Step(_move(record, Phase.SUBMITTING, doubt=True, lease_until=None, not_before=again))
        case Ambiguous(failure) if policy.ambiguous == "fail":
            return _end(record, Phase.UNKNOWN, policy, now, failure)
        case Ambiguous(failure):
            return Step(_move(record, Phase.SUBMITTING, doubt=True, lease_until=None, not_before=again, error=failure))
        case Refused(failure) | Missing(failure):
            lost = record.doubt and failure.code == ALREADY_EXISTS
            return _end(record, Phase.UNKNOWN if lost else Phase.REJECTED, policy, now, failure)
        case TryLater(failure, retry_after):
            return _put_back(record, failure, max(again, now + (retry_after or timedelta(0))), policy, now)
        case NotSent(failure) | Unauthorized(failure):
            return _put_back(record, failure, again, policy, now)
        case Done():
            return Step(record)
        case _:
            assert_never(answer)


def looked(record: JobRecord, answer: Answer, policy: JobPolicy, now: datetime, chance: float) -> Step:
    """Take in what a look at the job came to; only TAMS' own word changes anything."""
    if record.phase is not Phase.TRACKING:
        return Step(record)
    match answer:
        case Seen(view):
            found = record if record.missing_since is None else replace(record, missing_since=None)
            return _seen(found, view, policy, now, chance)
        case Missing(failure) | Refused(failure):
            return _missing(record, failure, policy, now)
        case _:
            return Step(record)


def cancel(record: JobRecord, policy: JobPolicy, now: datetime) -> Step:
    """The user gives the job up; without effect on one that has ended or is being stopped."""
    return _stop(record, Stop.CANCEL, policy, now)


def cancel_answered(record: JobRecord, answer: Answer) -> Step:
    """Take in TAMS' answer to a cancel; how the job ended is for the next look to say."""
    awaited = record.phase is Phase.TRACKING and record.stop is not None and not record.stop_told
    if awaited and isinstance(answer, Done | Missing | Refused):
        return Step(_move(record, Phase.TRACKING, stop_told=True))
    return Step(record)


def time_passed(record: JobRecord, policy: JobPolicy, now: datetime) -> Step:
    """Apply the deadline, if it has passed: the job is stopped; after the grace it is given up without TAMS' word."""
    if record.phase in ENDS or record.deadline is None or now < record.deadline:
        return Step(record)
    if now >= record.deadline + policy.deadline_grace:
        message = (
            "the deadline has passed and TAMS did not confirm the end: the job may have run, and may have been charged"
        )
        return _end(record, Phase.EXPIRED, policy, now, Failure(code="deadline", message=message))
    return _stop(record, Stop.DEADLINE, policy, now)


def due(record: JobRecord, policy: JobPolicy) -> datetime | None:
    """When `time_passed` (or, for an ended job, forgetting it) is next to be asked for; None for never."""
    if record.phase in ENDS:
        return record.expires_at
    if record.deadline is None or record.stop is None:
        return record.deadline
    return record.deadline + policy.deadline_grace


def _created(record: JobRecord, view: JobView, policy: JobPolicy, now: datetime, chance: float) -> Step:
    tracked = _move(
        record, Phase.TRACKING, doubt=False, tries=0, lease_until=None, not_before=None, error=None, job_id=view.job_id
    )
    told = _tell(_with_view(replace(tracked, submitted_at=now), view, now), EventType.SUBMITTED, now)
    if view.status in STATUS_ORDER:
        return told
    ended = _seen(told.record, view, policy, now, chance)
    return Step(ended.record, told.events + ended.events)


def _seen(record: JobRecord, view: JobView, policy: JobPolicy, now: datetime, chance: float) -> Step:
    match view.status:
        case TamsStatus.SUCCESS:
            return _end(_with_view(record, view, now), Phase.SUCCESS, policy, now)
        case TamsStatus.CANCELED:
            return _end(_with_view(record, view, now), _stopped_as(record), policy, now, _stop_failure(record))
        case TamsStatus.FAILED:
            return _failed(_with_view(record, view, now), view, policy, now, chance)
        case _:
            return _live(record, view, now)


def _failed(record: JobRecord, view: JobView, policy: JobPolicy, now: datetime, chance: float) -> Step:
    failure = view.failure
    may_retry = failure is not None and failure.retryable and record.stop is None
    if not may_retry or record.attempt >= record.max_attempts:
        return _end(record, Phase.FAILED, policy, now, failure)
    told = _tell(record, EventType.RETRYING, now, error=failure)
    again = _move(
        told.record,
        Phase.ACCEPTED,
        attempt=record.attempt + 1,
        not_before=now + policy.retry.pause(record.attempt, chance),
        error=failure,
        job_id=None,
        submitted_at=None,
        running_at=None,
        seen_at=None,
        job=NOTHING,
        status=None,
        queue_rank=None,
        progress=0.0,
        finished_nodes=0,
    )
    return Step(again, told.events)


def _live(record: JobRecord, view: JobView, now: datetime) -> Step:
    before, after = STATUS_ORDER.get(record.status, 0), STATUS_ORDER.get(view.status, 0)
    if 0 < after < before or not _has_moved(record, view):
        return Step(record)
    running = view.status == TamsStatus.RUNNING or (after == 0 and before == STATUS_ORDER[TamsStatus.RUNNING])
    return _tell(_with_view(record, view, now), EventType.RUNNING if running else EventType.WAITING, now)


def _has_moved(record: JobRecord, view: JobView) -> bool:
    return (
        view.status != record.status
        or (view.queue_rank is not None and view.queue_rank != record.queue_rank)
        or view.progress > record.progress
        or view.finished_nodes > record.finished_nodes
    )


def _with_view(record: JobRecord, view: JobView, now: datetime) -> JobRecord:
    starts = view.status == TamsStatus.RUNNING and record.running_at is None
    return replace(
        record,
        running_at=now if starts else record.running_at,
        seen_at=now,
        status=view.status,
        queue_rank=view.queue_rank,
        progress=max(record.progress, view.progress),
        finished_nodes=max(record.finished_nodes, view.finished_nodes),
        job=view.document,
    )


def _missing(record: JobRecord, failure: Failure, policy: JobPolicy, now: datetime) -> Step:
    if record.stop is not None and record.stop_told:
        return _end(record, _stopped_as(record), policy, now, _stop_failure(record))
    if record.missing_since is None:
        return Step(_move(record, Phase.TRACKING, missing_since=now))
    if now < record.missing_since + policy.missing_grace:
        return Step(record)
    return _end(record, Phase.UNKNOWN, policy, now, replace(failure, code="job_not_found"))


def _put_back(record: JobRecord, failure: Failure, again: datetime, policy: JobPolicy, now: datetime) -> Step:
    """TAMS did nothing this time: the job waits again, as what it was before this try."""
    if record.doubt:
        return Step(_move(record, Phase.SUBMITTING, lease_until=None, not_before=again, error=failure))
    if record.stop is not None:
        return _end(record, _stopped_as(record), policy, now, _stop_failure(record))
    return Step(_move(record, Phase.ACCEPTED, lease_until=None, not_before=again, error=failure))


def _stop(record: JobRecord, stop: Stop, policy: JobPolicy, now: datetime) -> Step:
    if record.phase in ENDS or record.stop is not None:
        return Step(record)
    stopping = replace(record, stop=stop)
    if record.phase is Phase.ACCEPTED:
        return _end(stopping, _stopped_as(stopping), policy, now, _stop_failure(stopping))
    return Step(stopping)


def _stopped_as(record: JobRecord) -> Phase:
    return Phase.EXPIRED if record.stop is Stop.DEADLINE else Phase.CANCELED


def _stop_failure(record: JobRecord) -> Failure | None:
    if record.stop is Stop.DEADLINE:
        return Failure(code="deadline", message="the deadline has passed before the job was done")
    return None


def _end(record: JobRecord, phase: Phase, policy: JobPolicy, now: datetime, failure: Failure | None = None) -> Step:
    ended = _move(
        record,
        phase,
        error=failure,
        not_before=None,
        lease_until=None,
        missing_since=None,
        doubt=False,
        expires_at=now + policy.dedupe_window,
    )
    return _tell(ended, TERMINAL_EVENT[phase], now, error=failure)


def _move(record: JobRecord, phase: Phase, **changes: object) -> JobRecord:
    if phase not in MOVES[record.phase]:
        message = f"{record.phase} → {phase}"
        raise ForbiddenMove(message)
    return replace(record, phase=phase, **changes)


def _tell(
    record: JobRecord,
    event_type: EventType,
    now: datetime,
    *,
    error: Failure | None = None,
    unknown_fields: tuple[str, ...] = (),
) -> Step:
    told = replace(record, sequence=record.sequence + 1)
    event = JobEvent(
        id=f"{told.request_id}.{told.sequence}",
        type=event_type,
        time=now,
        request_id=told.request_id,
        sequence=told.sequence,
        attempt=told.attempt,
        labels=told.labels or {},
        job=told.job,
        error=error,
        unknown_fields=unknown_fields,
    )
    return Step(told, (event,))
