from datetime import timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.answers import ALREADY_EXISTS, Call, read_answer
from bridge.messages import (
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
from tests.core.examples import NOW, SUCCESS_DOCUMENT, document

ERROR = b'{"code": 2, "message": "no"}'
RETRY = {"retry-after": "7"}
BEYOND_NUMBERS = ("Sun, 01 Mar 2026 12:00:30 +99999999999999999999", "Sun, 01 Mar 99999999999999999999 12:00:30 GMT")
"""Dates whose year or zone is too large for a date's, as an `OverflowError` says."""


def answer(
    status: int, body: bytes = ERROR, *, call: Call = Call.CREATE, headers: dict[str, str] | None = None
) -> Answer:
    return read_answer(call, status, headers or {}, body, now=NOW)


def failure(status: int, body: bytes) -> Failure:
    found = answer(status, body)
    assert isinstance(found, Refused | Ambiguous | TryLater | Unauthorized)
    return found.failure


GRID: list[tuple[str, int, bytes, dict[str, str], type, type, type]] = [
    ("200 with a job", 200, SUCCESS_DOCUMENT, {}, Seen, Seen, Done),
    ("201 with a job", 201, SUCCESS_DOCUMENT, {}, Seen, Seen, Done),
    ("200 unreadable", 200, b"<html>", {}, Ambiguous, Ambiguous, Done),
    ("204", 204, b"", {}, Ambiguous, Ambiguous, Done),
    ("202", 202, b"", {}, InHand, InHand, InHand),
    ("202 with a job", 202, SUCCESS_DOCUMENT, {}, InHand, InHand, InHand),
    ("401", 401, ERROR, {}, Unauthorized, Unauthorized, Unauthorized),
    ("401 without body", 401, b"", {}, Unauthorized, Unauthorized, Unauthorized),
    ("gateway, app", 404, b'{"code": 100001, "tips": "app not found"}', {}, Unauthorized, Unauthorized, Unauthorized),
    ("gateway, header", 400, b'{"code": 100002}', {}, Unauthorized, Unauthorized, Unauthorized),
    ("gateway, nulls", 404, b'{"code": 100001, "message": null}', {}, Unauthorized, Unauthorized, Unauthorized),
    ("gateway at 500", 500, b'{"code": 100001}', {}, Unauthorized, Unauthorized, Unauthorized),
    ("404", 404, ERROR, {}, Refused, Missing, Missing),
    ("404 of a proxy", 404, b"<html>", {}, Refused, Missing, Missing),
    ("408", 408, ERROR, {}, Ambiguous, Ambiguous, Ambiguous),
    ("425", 425, ERROR, {}, Ambiguous, Ambiguous, Ambiguous),
    ("429", 429, ERROR, {}, TryLater, TryLater, TryLater),
    ("400", 400, ERROR, {}, Refused, Missing, Refused),
    ("403", 403, ERROR, {}, Refused, Missing, Refused),
    ("409", 409, ERROR, {}, Refused, Missing, Refused),
    ("503 with Retry-After", 503, ERROR, RETRY, TryLater, TryLater, TryLater),
    ("503", 503, ERROR, {}, Ambiguous, Ambiguous, Ambiguous),
    ("500 with Retry-After", 500, ERROR, RETRY, Ambiguous, Ambiguous, Ambiguous),
    ("502", 502, b"", {}, Ambiguous, Ambiguous, Ambiguous),
    ("504", 504, b"", {}, Ambiguous, Ambiguous, Ambiguous),
    ("302", 302, b"", {}, Ambiguous, Ambiguous, Ambiguous),
    ("101", 101, b"", {}, Ambiguous, Ambiguous, Ambiguous),
]


@pytest.mark.parametrize("row", GRID, ids=[row[0] for row in GRID])
@pytest.mark.parametrize("call", list(Call))
def test_every_answer_means_what_the_table_says(
    row: tuple[str, int, bytes, dict[str, str], type, type, type], call: Call
) -> None:
    """The table on top of the module, row by row and call by call."""
    _, status, body, headers, create, look, cancel = row
    expected = {Call.CREATE: create, Call.LOOK: look, Call.CANCEL: cancel}[call]

    assert type(answer(status, body, call=call, headers=headers)) is expected


def test_job_of_a_success_is_read() -> None:
    """A create and a look answer with the job."""
    found = answer(200, document("WAITING", job_id="41"))

    assert isinstance(found, Seen)
    assert (found.view.job_id, found.view.status) == ("41", "WAITING")


def test_unreadable_success_says_so() -> None:
    """A 200 without a job is no success."""
    assert failure(200, b"{}").code == "unreadable_answer"


def test_text_comes_from_the_details() -> None:
    """TAMS says "Params Valid" of invalid ones; what helps lies in the details."""
    detail = {"@type": "x", "field": "workflow", "message": "node id: 25\nclass type: LoadImage\nimage: required"}
    body = msgspec.json.encode({"code": 3, "message": "Params Valid", "details": [detail, {"@type": "y"}]})

    assert failure(400, body).message == "workflow: node id: 25 class type: LoadImage image: required"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"code": 3, "message": "no credits"}', "no credits"),
        (b'{"code": 100001, "message": "unauthorized", "tips": "app not found"}', "unauthorized - app not found"),
        (b'{"code": 3, "message": "no", "details": []}', "no"),
        (b'{"code": 3, "message": "no", "details": "text"}', "no"),
        (b'{"code": 3, "message": "no", "details": null}', "no"),
        (b'{"code": 3, "message": "no", "details": [{"message": " "}, {"field": null}]}', "no"),
        (b'{"code": 3, "details": [{"message": "a"}, {"message": "b", "field": "f"}]}', "a; f: b"),
        (b'{"code": 3}', "TAMS answered 400"),
        (b"", "TAMS answered 400 without an error document"),
        (b"[]", "TAMS answered 400 without an error document"),
        (b'{"code": "three"}', "TAMS answered 400 without an error document"),
    ],
)
def test_message_is_the_most_useful_text_there_is(body: bytes, message: str) -> None:
    """For people, in both shapes of error documents and without any."""
    assert failure(400, body).message == message


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, b'{"code": 3, "message": "no"}', "invalid_argument"),
        (400, b'{"code": 3, "message": "invalid_samples"}', "invalid_samples"),
        (400, b'{"code": 3, "details": [{"message": "invalid_height_or_width: 65"}]}', "invalid_height_or_width"),
        (409, b'{"code": 6, "message": "again"}', ALREADY_EXISTS),
        (409, b"", "http_409"),
        (409, b"{}", ALREADY_EXISTS),
        (400, b'{"code": 6}', ALREADY_EXISTS),
        (404, b'{"code": 5}', "not_found"),
        (403, b'{"code": 7}', "permission_denied"),
        (429, b'{"code": 8}', "resource_exhausted"),
        (400, b'{"code": 77}', "http_400"),
        (418, b"teapot", "http_418"),
        (404, b'{"code": 100001}', "unauthorized"),
    ],
)
def test_code_is_the_most_specific_word_there_is(status: int, body: bytes, code: str) -> None:
    """For machines: what TAMS named, else the kind of error, else the HTTP status."""
    assert failure(status, body).code == code


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (404, False), (408, True), (425, True), (429, True), (500, True), (503, True)],
)
def test_failure_says_whether_trying_again_may_help(status: int, *, retryable: bool) -> None:
    """The request is at fault below 500, the server above, and the moment at 408, 425 and 429."""
    assert (failure(status, ERROR).retryable, failure(status, b"").retryable) == (retryable, retryable)


def test_details_are_kept_as_they_came() -> None:
    """What TAMS said in full goes into the event."""
    assert bytes(failure(400, b'{"code": 3, "details":  [{"a" : 1.0}]}').details) == b'[{"a" : 1.0}]'


def test_details_that_are_not_json_are_not_kept() -> None:
    """They would make an event that nobody can read."""
    assert not failure(400, b'{"code": 3, "details": [1, {"a": "\xff"}]}').details


def test_endless_text_is_cut() -> None:
    """A message is for people."""
    assert len(failure(400, msgspec.json.encode({"code": 3, "message": "x" * 9_000})).message) == 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("86400", 3600.0),
        ("9" * 40, 3600.0),
        ("inf", 3600.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_up_to_an_hour(value: str, seconds: float) -> None:
    """A wait that was asked for is kept, within reason."""
    found = answer(429, headers={"retry-after": value})

    assert isinstance(found, TryLater)
    assert found.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", " ", "soon", "1 1 1", "Sun, 99 Mar 2026 12:00:30 GMT", "\x00", *BEYOND_NUMBERS])
def test_retry_after_that_makes_no_sense_counts_as_none(value: str) -> None:
    """The pause is ours to choose then."""
    found = answer(429, headers={"retry-after": value})

    assert isinstance(found, TryLater)
    assert found.retry_after is None


@pytest.mark.parametrize(("status", "throttled"), [(429, True), (503, False)])
def test_only_429_says_that_the_rate_was_exceeded(status: int, *, throttled: bool) -> None:
    """An overloaded server is another matter."""
    found = answer(status, headers=RETRY)

    assert isinstance(found, TryLater)
    assert found.throttled is throttled


BODIES = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(["code", "message", "tips", "details", "job"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.text(max_size=10),
            st.lists(st.dictionaries(st.sampled_from(["field", "message", "@type"]), st.none() | st.text(max_size=9))),
        ),
    ).map(msgspec.json.encode),
)


@given(
    call=st.sampled_from(Call),
    status=st.integers(0, 999),
    body=BODIES,
    retry_after=st.text(max_size=40) | st.floats().map(str) | st.integers().map(str),
)
@example(call=Call.CREATE, status=429, body=b"", retry_after="nan")
@example(call=Call.CREATE, status=400, body=b"[" * 50_000, retry_after="")
@example(call=Call.CREATE, status=400, body=b'{"details": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", retry_after="")
def test_any_answer_means_something(call: Call, status: int, body: bytes, retry_after: str) -> None:
    """Nothing that TAMS or a proxy answers is an error of ours, and all of it can be written down."""
    found = answer(status, body, call=call, headers={"retry-after": retry_after})

    if isinstance(found, Refused | Missing | Ambiguous | TryLater | Unauthorized):
        assert msgspec.json.decode(msgspec.json.encode(found.failure), type=Failure) == found.failure


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z]{3}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\d+", fullmatch=True))
def test_any_retry_after_is_a_wait_or_nothing(value: str) -> None:
    """Dates of every kind of wrongness included."""
    found = answer(429, headers={"retry-after": value})

    assert isinstance(found, TryLater)
    assert found.retry_after is None or timedelta(0) <= found.retry_after <= timedelta(hours=1)


@pytest.mark.parametrize("levels", [150, 850, 100_000])
def test_details_are_passed_on_only_if_everybody_can_read_them(levels: int) -> None:
    """What is nested so deeply that it is only just read here could not be read from the ledger again."""
    details = b"[" * levels + b"]" * levels

    told = failure(400, b'{"code": 3, "message": "no", "details": ' + details + b"}")

    assert bytes(told.details) == (details if levels == 150 else b"")
