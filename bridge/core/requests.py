"""Reading the requests topic: what is a job, what is a cancel, and what can never become either."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from pydantic import JsonValue, ValidationError

from bridge.core.run_times import kind_of
from bridge.errors import UnreadableRequest
from bridge.messages import NOTHING, REQUEST_ID_MAX_BYTES, CancelRequest, DeadLetterReason, JobRequest, is_request_id
from bridge.ports import Arrival

COPIED_HEADERS = frozenset({"traceparent", "tracestate", "correlation_id", "correlation-id", "x-correlation-id"})
"""Headers of a request that every event of its job carries, too (W3C Trace Context; the usual correlation ids)."""

RequestT = TypeVar("RequestT", JobRequest, CancelRequest)

_ERRORS_SHOWN = 3
_DETAIL_SHOWN = 500
_HEADER_MAX_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArrival:
    """A readable job request.

    Args:
        request_id: given, or found (key, `ce_id`, position).
        request: what was asked.
        params: the graph, as received.
        kind: of the graph, see `run_times.kind_of`.
        headers: those of `COPIED_HEADERS` that the record had.
        position: `<topic>-<partition>-<offset>`, unique in this cluster.
    """

    request_id: str
    request: JobRequest
    params: bytes
    kind: str
    headers: dict[str, str]
    position: str


@dataclass(frozen=True, slots=True)
class CancelArrival:
    """A readable cancel request."""

    request_id: str


class _RawRequest(msgspec.Struct):
    params: msgspec.Raw = NOTHING
    cancel: msgspec.Raw = NOTHING


def read_request(arrival: Arrival, *, topic: str, partition: int, max_bytes: int) -> JobArrival | CancelArrival:
    """Read one record of the requests topic.

    Args:
        arrival: the record.
        topic, partition: where it came from; names a request that has no other id.
        max_bytes: longest value taken.

    Raises:
        UnreadableRequest: with the reason, one of `DeadLetterReason`.
    """
    value = arrival.value
    if not value:
        raise UnreadableRequest(DeadLetterReason.EMPTY, "the record has no value; a request is a JSON object")
    if len(value) > max_bytes:
        detail = f"the value has {len(value)} bytes; the limit is {max_bytes} (limits.max_request_bytes)"
        raise UnreadableRequest(DeadLetterReason.TOO_LARGE, detail)
    raw = _parse(value)
    if _is_given(raw.cancel) and _is_given(raw.params):
        detail = "a record holds either `params` (a job) or `cancel` (a request id), not both"
        raise UnreadableRequest(DeadLetterReason.INVALID_REQUEST, detail)
    if _is_given(raw.cancel):
        return CancelArrival(_validated(CancelRequest, value).cancel)
    request = _validated(JobRequest, value)
    position = f"{topic}-{partition}-{arrival.offset}"
    return JobArrival(
        request_id=request.request_id or _implied_id(arrival, position),
        request=request,
        params=bytes(raw.params),
        kind=kind_of(_node_classes(request.params)),
        headers=_copied_headers(arrival),
        position=position,
    )


def _node_classes(params: Mapping[str, JsonValue]) -> Iterator[str]:
    for node in params.values():
        if isinstance(node, dict):
            name = node.get("classType", node.get("class_type"))
            if isinstance(name, str):
                yield name


def _parse(value: bytes) -> _RawRequest:
    try:
        return msgspec.json.decode(value, type=_RawRequest)
    except msgspec.ValidationError:
        detail = "the value is JSON but not an object; a request is an object with `params` or `cancel`"
        raise UnreadableRequest(DeadLetterReason.INVALID_REQUEST, detail) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRequest(DeadLetterReason.INVALID_JSON, f"the value is not JSON: {error}") from None
    except RecursionError:
        raise UnreadableRequest(DeadLetterReason.INVALID_JSON, "the JSON is nested too deeply") from None


def _is_given(raw: msgspec.Raw) -> bool:
    return bool(raw) and bytes(raw) != b"null"


def _validated(kind: type[RequestT], value: bytes) -> RequestT:
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> UnreadableRequest:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [
        f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems[:_ERRORS_SHOWN]
    ]
    more = len(problems) - _ERRORS_SHOWN
    detail = ("; ".join(shown) + (f"; and {more} more" if more > 0 else ""))[:_DETAIL_SHOWN]
    if problems[0]["type"] == "json_invalid":
        return UnreadableRequest(DeadLetterReason.INVALID_JSON, detail)
    about_id = problems[0]["loc"][:1] in {("request_id",), ("requestId",), ("cancel",)}
    reason = DeadLetterReason.INVALID_REQUEST_ID if about_id else DeadLetterReason.INVALID_REQUEST
    return UnreadableRequest(reason, detail)


def _implied_id(arrival: Arrival, position: str) -> str:
    if arrival.key:
        return _id_from(arrival.key, "the record's key")
    for name, value in arrival.headers:
        if name == "ce_id" and value:
            return _id_from(value, "the header ce_id")
    return position


def _id_from(raw: bytes, source: str) -> str:
    text = raw.decode(errors="replace")
    if "\ufffd" not in text and is_request_id(text):
        return text
    detail = (
        f"{source} cannot serve as request id (1 to {REQUEST_ID_MAX_BYTES} bytes of printable UTF-8): "
        "give `request_id` in the value"
    )
    raise UnreadableRequest(DeadLetterReason.INVALID_REQUEST_ID, detail)


def _copied_headers(arrival: Arrival) -> dict[str, str]:
    copied = {}
    for name, value in arrival.headers:
        if value and len(value) <= _HEADER_MAX_BYTES and name.lower() in COPIED_HEADERS:
            text = value.decode(errors="replace")
            if text.isprintable() and "\ufffd" not in text:
                copied[name] = text
    return copied
