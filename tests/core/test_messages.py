from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.documents import read_job
from bridge.messages import (
    NOTHING,
    REQUEST_ID_MAX_BYTES,
    TERMINAL_EVENT,
    EventType,
    Failure,
    JobEvent,
    JobRecord,
    Phase,
    Stop,
    is_request_id,
)
from bridge.ports import Changes
from tests.core.examples import NOW, PAGE_DOCUMENT, SUCCESS_DOCUMENT

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
RAW = st.sampled_from([NOTHING, msgspec.Raw(b'{"a" : [1.0, null]}'), msgspec.Raw(b"[]"), msgspec.Raw(b'""')])
FAILURES = st.builds(
    Failure,
    code=TEXT,
    message=TEXT,
    retryable=st.booleans(),
    http_status=st.none() | st.integers(100, 599),
    details=RAW,
)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=2)
RECORDS = st.builds(
    JobRecord,
    request_id=TEXT,
    phase=st.sampled_from(Phase),
    sequence=st.integers(0, 2**40),
    attempt=st.integers(1, 100),
    max_attempts=st.integers(1, 100),
    priority=st.integers(0, 9),
    kind=TEXT,
    accepted_at=MOMENTS,
    seed=TEXT,
    tries=st.integers(0, 1_000),
    not_before=st.none() | MOMENTS,
    lease_until=st.none() | MOMENTS,
    deadline=st.none() | MOMENTS,
    doubt=st.booleans(),
    stop=st.none() | st.sampled_from(Stop),
    stop_told=st.booleans(),
    missing_since=st.none() | MOMENTS,
    job_id=st.none() | TEXT,
    submitted_at=st.none() | MOMENTS,
    running_at=st.none() | MOMENTS,
    seen_at=st.none() | MOMENTS,
    status=st.none() | TEXT,
    queue_rank=st.none() | st.integers(0, 2**63),
    progress=st.floats(0, 1),
    finished_nodes=st.integers(0, 1_000),
    job=RAW,
    error=st.none() | FAILURES,
    expires_at=st.none() | MOMENTS,
    labels=st.none() | PAIRS,
    headers=st.none() | PAIRS,
    webhook=RAW,
)
EVENTS = st.builds(
    JobEvent,
    id=TEXT,
    type=st.sampled_from(EventType),
    time=MOMENTS,
    request_id=TEXT,
    sequence=st.integers(1, 2**40),
    attempt=st.integers(1, 100),
    labels=PAIRS,
    job=RAW,
    error=st.none() | FAILURES,
    unknown_fields=st.lists(TEXT, max_size=3).map(tuple),
)


@given(RECORDS)
def test_record_is_read_back_as_it_was_written(record: JobRecord) -> None:
    """What the ledger keeps is what its next owner finds: moments to the microsecond, documents to the byte."""
    assert msgspec.json.decode(msgspec.json.encode(record), type=JobRecord) == record


@given(RECORDS)
def test_record_written_again_by_its_next_owner_is_the_same(record: JobRecord) -> None:
    """Nothing is lost by a second crash that was not lost by the first."""
    once = msgspec.json.encode(record)

    assert msgspec.json.encode(msgspec.json.decode(once, type=JobRecord)) == once


@given(EVENTS)
def test_event_is_read_back_as_it_was_written(event: JobEvent) -> None:
    """For consumers that use our types."""
    assert msgspec.json.decode(msgspec.json.encode(event), type=JobEvent) == event


@given(EVENTS)
def test_event_always_says_what_consumers_need(event: JobEvent) -> None:
    """These fields are there in every event, whatever their values."""
    written = msgspec.json.decode(msgspec.json.encode(event))

    assert written.keys() >= {"id", "type", "time", "request_id", "sequence", "attempt", "labels"}


def test_strategies_cover_every_field() -> None:
    """A field added later is tested, or this fails."""
    samples = [(RECORDS, JobRecord), (EVENTS, JobEvent)]

    covered = {kind: set(strategy.wrapped_strategy.kwargs) for strategy, kind in samples}  # type: ignore[attr-defined]

    assert covered == {JobRecord: {*JobRecord.__struct_fields__} - {"version"}, JobEvent: {*JobEvent.__struct_fields__}}


@pytest.mark.parametrize("body", [PAGE_DOCUMENT, SUCCESS_DOCUMENT], ids=["page", "success"])
def test_document_of_tams_is_in_the_event_as_received(body: bytes) -> None:
    """The seed page's example and the real success: nothing lost, nothing changed."""
    job = read_job(body).document
    event = JobEvent(
        id="a.1", type=EventType.SUCCESS, time=NOW, request_id="a", sequence=1, attempt=1, labels={}, job=job
    )

    assert body[body.index(b"{", 1) : -1] in msgspec.json.encode(event)


def test_moments_are_written_as_rfc_3339_in_utc() -> None:
    """As CloudEvents want them."""
    record = JobRecord(request_id="a", phase=Phase.ACCEPTED, accepted_at=NOW + timedelta(microseconds=5))

    assert b'"accepted_at":"2026-03-01T12:00:00.000005Z"' in msgspec.json.encode(record)


def test_record_of_a_later_version_with_more_fields_is_read() -> None:
    """A worker of the last release goes on after a roll back."""
    value = b'{"request_id":"a","phase":"accepted","accepted_at":"2026-03-01T12:00:00Z","version":2,"more":{}}'

    assert msgspec.json.decode(value, type=JobRecord).version == 2


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_is_terminal_if_it_has_a_terminal_event_of_its_name(phase: Phase) -> None:
    """The last word of the event type is the phase the job ended in."""
    ends = {event.value.rpartition(".")[2] for event in EventType if event.is_terminal}

    assert phase.is_terminal == (phase.value in ends)


def test_every_end_has_one_terminal_event() -> None:
    """No two ends are told alike."""
    assert len(set(TERMINAL_EVENT.values())) == len(TERMINAL_EVENT) == 6


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("a", True),
        ("a.b c/d", True),
        ("é" * 127, True),
        ("x" * REQUEST_ID_MAX_BYTES, True),
        ("", False),
        ("x" * (REQUEST_ID_MAX_BYTES + 1), False),
        ("é" * 128, False),
        ("a\nb", False),
        ("a\x7f", False),
        ("\ud800", False),
        ("a\u202eb", False),
    ],
)
def test_request_id_is_short_printable_text(text: str, *, is_id: bool) -> None:
    """It becomes a key, a header and a part of event ids; its length counts in bytes."""
    assert is_request_id(text) is is_id


@pytest.mark.parametrize(
    ("changes", "worth"),
    [
        (Changes(), False),
        (Changes(position=0), True),
        (Changes(records={"a": None}), True),
        (Changes(params={"a": None}), True),
    ],
)
def test_changes_are_worth_a_commit_if_anything_is_to_be_written(changes: Changes, *, worth: bool) -> None:
    """The position zero is one, too."""
    assert bool(changes) is worth
