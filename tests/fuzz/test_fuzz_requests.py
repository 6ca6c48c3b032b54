"""Whatever lies in the requests topic, one record of it is read, or parked with its reason; nothing else happens."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from bridge.core.jobs import accept
from bridge.core.requests import COPIED_HEADERS, CancelArrival, JobArrival, read_request
from bridge.errors import UnreadableRequest
from bridge.messages import LABELS_MAX_BYTES, DeadLetterReason, JobRecord
from bridge.ports import Arrival
from tests.core.examples import NOW, POLICY
from tests.fuzz.campaign import fuzz
from tests.fuzz.mutations import Document, hostile_text, spoilt_bytes, spoilt_document, spoilt_key

LIMIT = 20_000
LONGEST_DETAIL = 700
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Controls and line breaks."""

GRAPH: Document = {
    "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20, "model": ["4", 0]}, "properties": {}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
}
REQUESTS: Sequence[Document] = (
    {"params": GRAPH},
    {"request_id": "order-1041", "params": GRAPH, "labels": {"tenant": "acme"}, "priority": 9},
    {"requestId": "order-1042", "params": GRAPH, "deadlineS": 1800, "maxAttempts": 3, "note": "unknown"},
    {"request_id": "ö 💥", "params": {}, "deadline_s": 0.5, "max_attempts": 100, "priority": 0, "labels": {}},
    {
        "request_id": "order-1043",
        "params": {"1": {"classType": "A"}, "2": {"classType": "A"}, "3": 7, "4": None},
        "webhook": {"url": "https://acme.example/hook?token=t", "events": ["success", "tams.job.*"]},
        "labels": None,
    },
    {"cancel": "order-1041"},
    {"cancel": "order-1042", "params": None, "why": "too late"},
)
KEYS: Sequence[bytes] = (b"order-1041", b"order-1042", "ö 💥".encode(), b"k" * 255, b"k" * 256, b"", b"\xff", b"a\nb")
HEADERS: Sequence[tuple[str, bytes | None]] = (
    ("ce_id", b"order-1044"),
    ("ce_id", None),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("Correlation-ID", b"c-1"),
    ("x-correlation-id", b"c" * 2_000),
    ("tracestate", "ä=ö".encode()),
    ("dlq-reason", b"empty"),
    ("reply_to", b"tams.requests"),
    ("\\xff", b"\xff\x00"),
)


def make_arrival(chance: Random, offset: int = 0) -> Arrival:
    """A record of the requests topic."""
    key = None if chance.random() < 0.2 else spoilt_key(chance, KEYS)
    value = None if chance.random() < 0.01 else spoilt_document(chance, REQUESTS)
    return Arrival(offset=offset, key=key, value=value, headers=make_headers(chance))


def make_headers(chance: Random) -> tuple[tuple[str, bytes | None], ...]:
    """Headers of such a record."""
    headers = chance.sample(HEADERS, chance.choice((0, 0, 1, 2, 5)))
    if headers and chance.random() < 0.3:
        name, value = headers[0]
        headers[0] = (hostile_text(chance)[:50] if chance.random() < 0.3 else name, spoilt_bytes(chance, value or b"x"))
    return tuple(headers)


def check_arrival(arrival: Arrival) -> None:
    try:
        request = read_request(arrival, topic="tams.requests", partition=4, max_bytes=LIMIT)
    except UnreadableRequest as error:
        _check_refusal(error)
        return
    assert arrival.value is not None
    assert len(arrival.value) <= LIMIT
    assert 0 < len(request.request_id.encode()) <= 255
    assert _UNSEEN.search(request.request_id) is None
    written = _independently_read(arrival.value)
    if isinstance(request, CancelArrival):
        assert written["cancel"] == request.request_id
        return
    _check_job(request, written)
    _check_acceptance(request)


def _check_refusal(error: UnreadableRequest) -> None:
    assert error.reason in set(DeadLetterReason)
    assert 0 < len(error.detail) <= LONGEST_DETAIL
    error.detail.encode()


def _check_job(request: JobArrival, written: dict[str, Any]) -> None:
    asked = request.request
    assert _independently_read(request.params) == written["params"], "the graph goes on as it came"
    assert asked.priority is None or 0 <= asked.priority <= 9
    assert asked.max_attempts is None or 1 <= asked.max_attempts <= 100
    assert asked.deadline_s is None or 0 < asked.deadline_s <= timedelta(days=30).total_seconds()
    assert sum(len(name.encode()) + len(value.encode()) for name, value in asked.labels.items()) <= LABELS_MAX_BYTES
    assert set(request.headers) <= {name for name in request.headers if name.lower() in COPIED_HEADERS}
    assert all(value.isprintable() and len(value.encode()) <= 1024 for value in request.headers.values())
    assert len(request.kind) == 25


def _check_acceptance(request: JobArrival) -> None:
    """What is accepted can be written down, and is read back as it was."""
    step = accept(request, POLICY, NOW)
    record = msgspec.json.decode(msgspec.json.encode(step.record), type=JobRecord)
    assert msgspec.json.encode(record) == msgspec.json.encode(step.record)
    assert (record.request_id, record.kind, record.labels) == (
        request.request_id,
        request.kind,
        request.request.labels or None,
    )
    (event,) = step.events
    _independently_read(msgspec.json.encode(event))


def _independently_read(value: bytes) -> Any:
    """As strict readers in other languages would; numbers as text, so that none is too large."""
    return json.loads(value.decode(), parse_int=str, parse_float=str, parse_constant=_no_json)


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def test_any_request_record_is_read_or_refused_with_a_reason() -> None:
    fuzz("requests", make_arrival, check_arrival)
