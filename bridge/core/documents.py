"""Reading a TAMS job document: only what decisions need, tolerant of everything else.

Source: reference page of `POST /v1/jobs/workflow` and what is known beyond it: 64-bit integers travel as strings, a
missing field means zero, unknown fields and statuses may appear at any time.
"""

from collections.abc import Mapping

import msgspec

from bridge.messages import Failure, JobView, TamsStatus

_PERCENT = 100.0
_REASON_SHOWN = 1000
"""The whole reason stands in the document itself."""

_ID_LENGTH_MAX = 255
_SPARE = 200
_OPENED, _CLOSED = b"[" * _SPARE, b"]" * _SPARE
"""How deep JSON may be nested for msgspec follows from how deep the program is in calls: what is only just read here
could not be read again elsewhere. What can be read inside of these can be."""


class UnreadableDocument(ValueError):
    """The bytes are not a TAMS job."""


class _Envelope(msgspec.Struct):
    job: msgspec.Raw


def read_job(body: bytes) -> JobView:
    """Read the answer to a create or a look.

    Args:
        body: `{"job": {...}}` as received.

    Raises:
        UnreadableDocument: not JSON, no job in it, or a job without an id that a URL can hold.
    """
    try:
        raw = msgspec.json.decode(body, type=_Envelope).job.copy()
        job = read_passed_on(bytes(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"not a job document: {error}"
        raise UnreadableDocument(message) from None
    fields = _mapping(job)
    job_id = fields.get("id")
    if not isinstance(job_id, str | int) or not job_id or job_id is True:
        message = "not a job document: it has no id"
        raise UnreadableDocument(message)
    if not _is_in_a_path(str(job_id)):
        message = f"not a job document: its id is not 1 to {_ID_LENGTH_MAX} printable characters"
        raise UnreadableDocument(message)
    status = fields.get("status")
    status = status if isinstance(status, str) else "DEFAULT"
    running = _mapping(fields.get("runningInfo"))
    return JobView(
        job_id=str(job_id),
        status=status,
        queue_rank=_integer(_mapping(fields.get("waitingInfo")).get("queueRank"))
        if status == TamsStatus.WAITING
        else None,
        progress=_progress(running),
        finished_nodes=_finished_nodes(running),
        failure=_failure(_mapping(fields.get("failedInfo"))) if status == TamsStatus.FAILED else None,
        document=raw,
    )


def read_passed_on(raw: bytes) -> object:
    """Read JSON that is passed on as it is, if all can read it who will have to.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no JSON, or nested too deeply.
    """
    value: object = msgspec.json.decode(raw)
    if raw.count(b"[") + raw.count(b"{") > _SPARE:
        msgspec.json.decode(b"".join((_OPENED, raw, _CLOSED)))
    return value


def _is_in_a_path(job_id: str) -> bool:
    """Whether it names a job in a URL's path, where dots would lead elsewhere."""
    return len(job_id) <= _ID_LENGTH_MAX and job_id.isprintable() and job_id not in {".", ".."}


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int:
    return int(_number(value))


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return number if abs(number) < float("inf") else 0.0


def _progress(running: Mapping[object, object]) -> float:
    """Furthest progress told anywhere, as 0 to 1; whether TAMS counts to 1 or to 100 is not known."""
    told = [_number(_mapping(running.get("workflowFinishItem")).get("progress"))]
    images = running.get("processingImages")
    told += [_number(_mapping(image).get("progress")) for image in images] if isinstance(images, list) else []
    furthest = max(told)
    return min(max(furthest / _PERCENT if furthest > 1 else furthest, 0.0), 1.0)


def _finished_nodes(running: Mapping[object, object]) -> int:
    finished = _mapping(_mapping(running.get("workflowFinishItem")).get("finishedNodes"))
    return sum(1 for done in finished.values() if done)


def _failure(info: Mapping[object, object]) -> Failure:
    code = info.get("code")
    code = code if isinstance(code, str) and code else "DEFAULT"
    reason = info.get("reason")
    message = reason[:_REASON_SHOWN] if isinstance(reason, str) and reason else "TAMS gave no reason"
    return Failure(code=code, message=message, retryable=code == "TRANSITORY_ERROR")
