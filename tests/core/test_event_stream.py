"""Server-sent events are read as the standard says, however the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.event_stream import EventStreamDecoder, ServerEvent


def read(*chunks: bytes) -> list[ServerEvent]:
    decoder = EventStreamDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [ServerEvent(name="message", data="a")]),
        (b"data:a\n\n", [ServerEvent(name="message", data="a")]),
        (b"data:  a\n\n", [ServerEvent(name="message", data=" a")]),
        (b"event: running\nid: o.3\ndata: a\n\n", [ServerEvent(name="running", data="a", id="o.3")]),
        (b"data: a\ndata: b\n\n", [ServerEvent(name="message", data="a\nb")]),
        (b"data\n\n", [ServerEvent(name="message", data="")]),
        (b": still here\n\n", []),
        (b"event: nothing\n\n", []),
        (b"retry: 5\nunknown: x\ndata: a\n\n", [ServerEvent(name="message", data="a")]),
        (b"data: a\r\n\r\n", [ServerEvent(name="message", data="a")]),
        (b"data: a\r\rdata: b\n\n", [ServerEvent(name="message", data="a"), ServerEvent(name="message", data="b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [ServerEvent(name="message", data="a")]),
        (b"data: \xff\n\n", [ServerEvent(name="message", data="\ufffd")]),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
    ],
)
def test_the_fields_of_an_event_are_read(stream: bytes, events: list[ServerEvent]) -> None:
    assert read(stream) == events


def test_the_name_of_an_event_is_its_own_and_the_id_lasts() -> None:
    """An event without a name after a named one must not be taken for its like."""
    first, second = read(b"event: running\nid: 1\ndata: a\n\ndata: b\n\n")

    assert (first.name, first.id) == ("running", "1")
    assert (second.name, second.id) == ("message", "1")


def test_an_id_with_a_null_character_is_ignored() -> None:
    (event,) = read(b"id: 1\nid: 2\0\ndata: a\n\n")

    assert event.id == "1"


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_what_is_a_line_end_elsewhere_is_none_here(character: str) -> None:
    """JSON may hold these unescaped; an event cut there would be no JSON any more."""
    (event,) = read(f"data: a{character}b\n\n".encode())

    assert event.data == f"a{character}b"


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["", "running", "ü"]), st.text(st.characters(exclude_characters="\r\n")))
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    cuts=st.lists(st.integers(min_value=0, max_value=400)),
)
def test_where_the_network_cuts_makes_no_difference(events: list[tuple[str, str]], end: str, cuts: list[int]) -> None:
    """An event is complete with its last byte, and the same wherever the chunks ended."""
    stream = "".join(f"event: {name}{end}data: {data}{end}{end}" for name, data in events).encode()
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[begin:stop] for begin, stop in pairwise(places)]

    assert read(*chunks) == [ServerEvent(name=name or "message", data=data) for name, data in events]
