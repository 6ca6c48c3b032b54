"""Reading what a person hands to `tams-bridge submit`: one graph, one request, a list of either, or JSON lines."""

import json
from collections.abc import Mapping
from uuid import uuid4

from pydantic import ValidationError

from bridge.errors import CannotStart
from bridge.messages import JobRequest

Draft = tuple[str, bytes]
"""A request id and the record's value."""

UNREADABLE = (ValueError, RecursionError)
"""What `json` raises: for what is no JSON, for a number of thousands of digits, for nesting without end."""


def read_drafts(text: str, *, source: str, defaults: Mapping[str, object]) -> list[Draft]:
    """Turn a file into records for the requests topic.

    Args:
        text: the file.
        source: its name, for messages.
        defaults: fields for requests that do not have them (`request_id`, `labels`, …); None means not given.

    Raises:
        CannotStart: the text is not JSON, or not a request; names the place.
    """
    items = _items(text, source)
    given = {name: value for name, value in defaults.items() if value is not None}
    if "request_id" in given and len(items) > 1:
        message = f"{source}: holds {len(items)} requests, so --id cannot name them all: put `request_id` into each"
        raise CannotStart(message)
    return [_draft(item, given, f"{source}, request {number}") for number, item in enumerate(items, 1)]


def _items(text: str, source: str) -> list[object]:
    try:
        parsed: object = json.loads(text)
    except UNREADABLE as whole:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len(lines) <= 1:
            message = f"{source}: not JSON: {whole}"
            raise CannotStart(message) from None
        return [_line(line, number, source) for number, line in lines]
    items = parsed if isinstance(parsed, list) else [parsed]
    if not items:
        message = f"{source}: holds no request"
        raise CannotStart(message)
    return items


def _line(line: str, number: int, source: str) -> object:
    try:
        parsed: object = json.loads(line)
    except UNREADABLE as error:
        message = f"{source}, line {number}: not JSON: {error}"
        raise CannotStart(message) from None
    return parsed


def _draft(item: object, given: Mapping[str, object], place: str) -> Draft:
    if not isinstance(item, dict):
        message = f"{place}: a request is a JSON object, or a graph of nodes"
        raise CannotStart(message)
    request = {**given, **(item if "params" in item else {"params": item})}
    if not _is_graph(item) and "params" not in item:
        message = (
            f"{place}: neither a request (it has no `params`) nor a graph (a node has no `classType` or `class_type`)"
        )
        raise CannotStart(message)
    request.setdefault("request_id", request.pop("requestId", None) or uuid4().hex)
    try:
        written = json.dumps(request, ensure_ascii=False, allow_nan=False)
        checked = JobRequest.model_validate_json(written)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        message = f"{place}: {'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
        raise CannotStart(message) from None
    except UNREADABLE as error:  # no JSON after all: NaN, numbers too large, half a character
        message = f"{place}: {error}"
        raise CannotStart(message) from None
    return str(checked.request_id), written.encode()


def _is_graph(item: Mapping[str, object]) -> bool:
    return bool(item) and all(
        isinstance(node, dict) and ("classType" in node or "class_type" in node) for node in item.values()
    )
