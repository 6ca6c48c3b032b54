"""What people hand to `tams-bridge submit` is sent as workers will take it, or refused with its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from bridge.core.event_stream import EventStreamDecoder
from bridge.core.requests import read_request
from bridge.errors import CannotStart
from bridge.ports import Arrival
from bridge.requests_file import read_drafts
from tests.fuzz.campaign import check_words, fuzz
from tests.fuzz.mutations import spoilt_bytes, spoilt_document
from tests.fuzz.test_fuzz_requests import GRAPH, REQUESTS

FILES = (*REQUESTS[:5], GRAPH)
DEFAULTS: Sequence[Mapping[str, object]] = ({}, {"labels": {"a": "b"}, "priority": 3}, {"request_id": "given"})


@dataclass(frozen=True, slots=True)
class Handed:
    """A file and what the command line says besides."""

    text: str
    defaults: int


def make_file(chance: Random) -> Handed:
    """One request, a list, or JSON lines."""
    parts = [spoilt_document(chance, FILES).decode(errors="replace") for _ in range(chance.choice((1, 1, 2, 4)))]
    match chance.random():
        case luck if luck < 0.5 or len(parts) == 1:
            text = "\n".join(parts)
        case luck if luck < 0.75:
            text = f"[{','.join(parts)}]"
        case _:
            text = "\r\n\n".join(parts)
    if chance.random() < 0.1:
        text = chance.choice(("", "[]", "null", "7", "\ufeff{}", '"\u2028"', "9" * 5_000, "[" * 5_000))
    return Handed(text, chance.randrange(len(DEFAULTS)))


def check_file(handed: Handed) -> None:
    try:
        drafts = read_drafts(handed.text, source="jobs.json", defaults=DEFAULTS[handed.defaults])
    except CannotStart as error:
        check_words(error, most=2_000)
        return
    assert drafts
    for request_id, value in drafts:
        arrival = Arrival(offset=0, key=request_id.encode(), value=value)
        taken = read_request(arrival, topic="t", partition=0, max_bytes=1 << 22)
        assert taken.request_id == request_id, "what is sent is accepted"


def test_a_file_of_requests_is_sent_or_refused_with_its_place() -> None:
    fuzz("request files", make_file, check_file)


# ------------------------------------------------------------------------------------------------- server-sent events
STREAM = (
    b': still here\n\nid: order-1.1\nevent: tams.job.accepted\ndata: {"a": 1}\n\n'
    b"id: order-1.2\r\nevent: tams.job.running\r\ndata: {\r\ndata: }\r\n\r\ndata\n\nretry: 5\n\n\xef\xbb\xbfdata: x\r\r"
)


def make_stream(chance: Random) -> Sequence[bytes]:
    """A stream, cut anywhere, and a last byte."""
    stream = spoilt_bytes(chance, STREAM)
    chunks: list[bytes] = []
    while stream:
        at = chance.choice((1, 2, 7, 50, 1_000))
        chunks.append(stream[:at])
        stream = stream[at:]
    return [*chunks, b"y"]


def check_stream(chunks: Sequence[bytes]) -> None:
    decoder, whole = EventStreamDecoder(), EventStreamDecoder()
    found = [event for chunk in chunks for event in decoder.feed(chunk)]
    assert found == whole.feed(b"".join(chunks)), "where a stream is cut means nothing"


def test_a_stream_of_events_means_the_same_however_it_is_cut() -> None:
    fuzz("event streams", make_stream, check_stream)
