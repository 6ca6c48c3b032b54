"""Long inputs: what reads bytes from outside takes time and memory in proportion to them, and little of either."""

import json
import time
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec
import pytest

from bridge.adapters.kafka.deliveries import DispatchReplay
from bridge.adapters.kafka.ledger import Replay
from bridge.api.hub import EventHub
from bridge.core.addresses import AddressPolicy, ForbiddenTarget
from bridge.core.answers import Call, read_answer
from bridge.core.deliveries import read_retry_after
from bridge.core.event_stream import EventStreamDecoder
from bridge.core.keyring import Keyring
from bridge.core.registry import Registry, matches_type
from bridge.core.requests import read_request
from bridge.core.run_times import kind_of
from bridge.core.signatures import InvalidSecret, InvalidSignature, Verifier, scheme_of
from bridge.core.slot_table import read_record
from bridge.errors import CannotStart, LedgerUnavailable, UnreadableRequest
from bridge.ports import Arrival
from bridge.requests_file import read_drafts
from tests.core.examples import NOW
from tests.fuzz.test_fuzz_signatures import GOOD, SHARED

T = TypeVar("T")

SIZE = 1_000_000
CPU_LIMIT_S = 1.5
"""Of a core; the slowest was measured to take a quarter of it."""
SMALL = 100_000
"""Of this size where memory is measured, which takes long."""
MEMORY_LIMIT = 120 * SMALL
"""JSON of nothing but brackets or small numbers is nearly that much larger as Python objects."""

REFUSALS = (
    UnreadableRequest,
    LedgerUnavailable,
    CannotStart,
    InvalidSecret,
    InvalidSignature,
    ForbiddenTarget,
)


def _shapes(size: int) -> dict[str, bytes]:
    """JSON that is long in one way or another, as the value of a field."""
    return {
        "text": b'"%s"' % (b"x" * size),
        "escapes": b'"%s"' % (b"\\u00e9" * (size // 6)),
        "digits": b"9" * size,
        "fraction": b"0." + b"3" * size,
        "exponent": b"1e" + b"9" * size,
        "list": b"[%s0]" % (b"0," * (size // 2)),
        "lists": b"[%s[]]" % (b"[]," * (size // 3)),
        "depth": b"[" * (size // 2) + b"]" * (size // 2),
        "open": b"[" * size,
        "names": b"{%s}" % b",".join(b'"%d":0' % number for number in range(size // 9)),
        "one name": b"{%s}" % b",".join([b'"a":0'] * (size // 6)),
        "spaces": b" " * size + b"0",
        "objects": b"[%s{}]" % (b'{"classType":"a"},' * (size // 18)),
    }


SHAPES, SMALL_SHAPES = _shapes(SIZE), _shapes(SMALL)
WIDE = ("list", "lists", "names", "objects", "depth")
"""Those that Python makes many objects of."""


def _request(name: bytes) -> Callable[[bytes], object]:
    def read(shape: bytes) -> object:
        value = b'{"params":{"3":{"classType":"A"}},%s:%s}' % (name, shape)
        return read_request(Arrival(offset=0, key=b"k", value=value), topic="t", partition=0, max_bytes=4 * SIZE)

    return read


def _graph(shape: bytes) -> object:
    value = b'{"params":{"3":%s}}' % shape
    return read_request(Arrival(offset=0, key=b"k", value=value), topic="t", partition=0, max_bytes=4 * SIZE)


def _answer(body: bytes, status: int = 200) -> object:
    return read_answer(Call.LOOK, status, {}, body, now=NOW)


def _replayed(replay: Replay | DispatchReplay, shape: bytes) -> object:
    replay.add(b"order-1", b'{"request_id":"order-1","labels":%s}' % shape)
    return replay.decoded() if isinstance(replay, Replay) else replay.opened(None)  # type: ignore[arg-type]


def _file(shape: bytes) -> object:
    return read_drafts(shape.decode(), source="f", defaults={})


READERS: Mapping[str, Callable[[bytes], object]] = {
    "graph": _graph,
    "unknown field": _request(b'"x"'),
    "labels": _request(b'"labels"'),
    "webhook": lambda shape: _request(b'"webhook"')(b'{"url":"https://a.example/","events":%s}' % shape),
    "job": lambda shape: _answer(b'{"job":{"id":"7","status":"RUNNING","runningInfo":%s}}' % shape),
    "error": lambda shape: _answer(b'{"code":3,"details":%s}' % shape, 400),
    "jobs ledger": lambda shape: _replayed(Replay(), shape),
    "deliveries ledger": lambda shape: _replayed(DispatchReplay(), shape),
    "registry": lambda shape: Registry().apply(b"ep_a", b'{"id":"ep_a","labels":%s}' % shape),
    "api keys": lambda shape: Keyring().apply(b"id", b'{"id":"id","scopes":%s}' % shape),
    "slots": lambda shape: read_record(b'{"type":"leave","worker":"a","x":%s}' % shape),
    "hub": lambda shape: EventHub().take(b'{"id":"a","x":%s}' % shape),
    "file": _file,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_megabyte_of_json_is_read_or_refused_in_no_time(reader: str) -> None:
    for shape, written in SHAPES.items():
        assert _cpu_of(READERS[reader], written) < CPU_LIMIT_S, shape


@pytest.mark.parametrize("reader", READERS)
def test_json_takes_no_more_memory_than_it_must(reader: str) -> None:
    """Nor does what is wrong with it: pydantic can name each of a million faults."""
    for shape in WIDE:
        tracemalloc.start()
        try:
            _cpu_of(READERS[reader], SMALL_SHAPES[shape])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < MEMORY_LIMIT, shape


TEXTS: Mapping[str, str] = {
    "letters": "a" * SIZE,
    "digits": "9" * SIZE,
    "stars": "*" * SIZE,
    "stars and letters": "*a" * (SIZE // 2),
    "spaces": " " * SIZE,
    "commas": "," * SIZE,
    "brackets": "(" * SIZE,
    "colons": ":" * SIZE,
    "dots": "a." * (SIZE // 2),
    "signatures": "v1,AAAA " * (SIZE // 8),
    "public signatures": "v1a,AAAA " * (SIZE // 9),
}


def _verified(text: str) -> None:
    Verifier([SHARED]).verify({**GOOD, "webhook-signature": text}, b"", now=NOW)


TEXT_READERS: Mapping[str, Callable[[str], object]] = {
    "retry after": lambda text: read_retry_after(f"Sun, {text}", NOW),
    "patterns": lambda text: matches_type([text], "tams.job.success"),
    "url": lambda text: AddressPolicy().check_url(f"https://{text}/"),
    "secret": lambda text: scheme_of(f"whsec_{text}"),
    "signature": _verified,
    "timestamp": lambda text: Verifier([SHARED]).verify({**GOOD, "webhook-timestamp": text}, b"", now=NOW),
    "key": lambda text: Keyring().find(f"tbk_{text}"),
    "kind": lambda text: kind_of([text] * 3),
}


@pytest.mark.parametrize("reader", TEXT_READERS)
def test_a_megabyte_of_text_is_read_or_refused_in_no_time(reader: str) -> None:
    for shape, text in TEXTS.items():
        assert _cpu_of(TEXT_READERS[reader], text) < CPU_LIMIT_S, shape


def test_a_long_line_of_a_stream_costs_the_more_the_longer_it_is_and_no_more() -> None:
    """Each chunk that comes is looked at once, not all that came before it."""
    decoder = EventStreamDecoder()
    chunk = b"x" * 1_000

    def feed(times: int) -> None:
        decoder.feed(b"data: ")
        for _ in range(times):
            decoder.feed(chunk)

    assert _cpu_of(feed, 4 * SIZE // len(chunk)) < CPU_LIMIT_S
    (event,) = decoder.feed(b"\n\n")
    assert len(event.data) == 4 * SIZE


def _cpu_of(reader: Callable[[T], object], given: T) -> float:
    """Seconds of a core."""
    began = time.thread_time()
    with suppress(*REFUSALS):
        reader(given)
    return time.thread_time() - began


def test_the_shapes_are_what_they_are_said_to_be() -> None:
    """Long, and but for three of them JSON."""
    assert all(SIZE // 2 < len(shape) < 3 * SIZE for shape in SHAPES.values())
    assert json.loads(SHAPES["objects"])[0] == {"classType": "a"}
    assert len(msgspec.json.decode(SHAPES["names"])) == SIZE // 9
