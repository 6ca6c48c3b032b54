"""What an HTTP answer of TAMS means: the one table that tells refusals, waits, bad credentials and doubt apart.

| answer                                        | create      | look        | cancel      |
|-----------------------------------------------|-------------|-------------|-------------|
| 2xx with a job (202 aside)                    | Seen        | Seen        | Done        |
| 2xx that cannot be read                       | Ambiguous   | Ambiguous   | Done        |
| 202                                           | InHand      | InHand      | InHand      |
| 401; gateway codes 100001, 100002 at any status | Unauthorized | Unauthorized | Unauthorized |
| 404                                           | Refused     | Missing     | Missing     |
| 408, 425                                      | Ambiguous   | Ambiguous   | Ambiguous   |
| 429                                           | TryLater    | TryLater    | TryLater    |
| other 4xx                                     | Refused     | Missing     | Refused     |
| 503 with Retry-After                          | TryLater    | TryLater    | TryLater    |
| other 5xx, 1xx, 3xx                           | Ambiguous   | Ambiguous   | Ambiguous   |

Source: tams-api.md, "Errors"; stack.md, "The POST that costs money".
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus

import msgspec

from bridge.core.documents import UnreadableDocument, read_job, read_passed_on
from bridge.messages import (
    NOTHING,
    Ambiguous,
    Answer,
    Done,
    Failure,
    InHand,
    Missing,
    Refused,
    Seen,
    TryLater,
    Unauthorized,
)

ALREADY_EXISTS = "already_exists"
"""Failure code of a repeated `requestId` that TAMS answers with an error instead of the job."""

_GATEWAY_CODES = frozenset({100001, 100002})
_SPECIFIC_CODES = ("invalid_samples", "invalid_height_or_width")
_RPC_CODES = {
    3: "invalid_argument",
    5: "not_found",
    6: ALREADY_EXISTS,
    7: "permission_denied",
    8: "resource_exhausted",
    9: "failed_precondition",
    16: "unauthenticated",
}
_SUCCESS, _CLIENT_ERROR, _SERVER_ERROR = range(200, 300), range(400, 500), range(500, 600)
_DOUBTFUL = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_TEXT_SHOWN = 500


class Call(Enum):
    """What was asked of TAMS."""

    CREATE = "create"
    LOOK = "look"
    CANCEL = "cancel"


def read_answer(
    call: Call,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    longest_pause: timedelta = timedelta(hours=1),
) -> Answer:
    """Classify a complete HTTP answer.

    Args:
        call: what was asked.
        status: HTTP status code.
        headers: names in lower case.
        body: as received.
        now: the wall clock, for a `Retry-After` given as a date.
        longest_pause: that is followed, whatever it asks for.
    """
    if status == HTTPStatus.ACCEPTED:
        return InHand()
    if status in _SUCCESS:
        return _read_success(call, status, body)
    failure = _read_failure(status, body)
    if status == HTTPStatus.UNAUTHORIZED or failure.code == "unauthorized":
        return Unauthorized(failure)
    retry_after = _read_retry_after(headers.get("retry-after"), now, longest_pause)
    throttled = status == HTTPStatus.TOO_MANY_REQUESTS
    if throttled or (status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None):
        return TryLater(failure, retry_after, throttled=throttled)
    if status in _CLIENT_ERROR and status not in _DOUBTFUL:
        return _refusal(call, status, failure)
    return Ambiguous(failure)


def _read_success(call: Call, status: int, body: bytes) -> Answer:
    if call is Call.CANCEL:
        return Done()
    try:
        return Seen(read_job(body))
    except UnreadableDocument as error:
        return Ambiguous(Failure(code="unreadable_answer", message=str(error), retryable=True, http_status=status))


def _refusal(call: Call, status: int, failure: Failure) -> Answer:
    if call is Call.LOOK or (call is Call.CANCEL and status == HTTPStatus.NOT_FOUND):
        return Missing(failure)
    return Refused(failure)


class _Detail(msgspec.Struct):
    field: str | None = None
    message: str | None = None


class _ErrorBody(msgspec.Struct):
    code: int = 0
    message: str | None = None
    tips: str | None = None
    details: msgspec.Raw = NOTHING


def _read_failure(status: int, body: bytes) -> Failure:
    retryable = status in _SERVER_ERROR or status in _DOUBTFUL or status == HTTPStatus.TOO_MANY_REQUESTS
    try:
        error = msgspec.json.decode(body, type=_ErrorBody)
        details = error.details.copy()
        said = _said(error)
        if details:
            read_passed_on(bytes(details))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        code, message = f"http_{status}", f"TAMS answered {status} without an error document"
        return Failure(code=code, message=message, retryable=retryable, http_status=status)
    return Failure(
        code=_code(status, error.code, said),
        message=(said or f"TAMS answered {status}")[:_TEXT_SHOWN],
        retryable=retryable,
        http_status=status,
        details=details or NOTHING,
    )


def _code(status: int, code: int, said: str) -> str:
    if code in _GATEWAY_CODES:
        return "unauthorized"
    specific = next((word for word in _SPECIFIC_CODES if word in said), None)
    by_status = ALREADY_EXISTS if status == HTTPStatus.CONFLICT else f"http_{status}"
    return specific or _RPC_CODES.get(code, by_status)


def _said(error: _ErrorBody) -> str:
    """The useful text lies in `details`; `message` may say "Params Valid" of invalid ones."""
    try:
        details = msgspec.json.decode(error.details, type=list[_Detail]) if error.details else []
    except msgspec.ValidationError:
        details = []
    told = [": ".join(text for text in (detail.field, detail.message) if text) for detail in details]
    told = [" ".join(text.split()) for text in told if text.strip()]
    return "; ".join(told) or " - ".join(text for text in (error.message, error.tips) if text)


def _read_retry_after(value: str | None, now: datetime, longest: timedelta) -> timedelta | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # a year or a zone of twenty digits is no number for a date
            return None
        seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    return timedelta(seconds=min(max(0.0, seconds), longest / timedelta(seconds=1)))
