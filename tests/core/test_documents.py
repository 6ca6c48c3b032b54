import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.documents import UnreadableDocument, read_job
from bridge.messages import Failure, JobView
from tests.core.examples import PAGE_DOCUMENT, SUCCESS_DOCUMENT, view


def running_view(**running_info: object) -> JobView:
    return view("RUNNING", runningInfo=running_info)


def test_example_of_the_reference_page_is_read() -> None:
    """A job of which nothing is known is live."""
    found = read_job(PAGE_DOCUMENT)

    assert (found.job_id, found.status, found.queue_rank, found.progress, found.finished_nodes, found.failure) == (
        "string", "DEFAULT", None, 0.0, 0, None,
    )  # fmt: skip


def test_real_success_is_read() -> None:
    """As pasted by a user of TAMS."""
    found = read_job(SUCCESS_DOCUMENT)

    assert (found.job_id, found.status, found.failure) == ("881417947308949275", "SUCCESS", None)


@pytest.mark.parametrize("body", [PAGE_DOCUMENT, SUCCESS_DOCUMENT], ids=["page", "success"])
def test_document_is_kept_byte_for_byte(body: bytes) -> None:
    """The upstream object is passed on whole, white space and unknown fields included."""
    start = body.index(b"{", 1)

    assert bytes(read_job(body).document) == body[start:-1]


def test_success_with_videos_is_kept_whole() -> None:
    """What the bridge does not read is not lost."""
    info = {"videos": [{"url": "https://x", "fps": 24}], "later": None}

    found = view("SUCCESS", successInfo=info)

    assert json.loads(bytes(found.document))["successInfo"] == info


def test_unknown_status_is_handed_on() -> None:
    """New words of TAMS are no error."""
    assert view("PAUSED").status == "PAUSED"


@pytest.mark.parametrize("status", [None, 5, ["RUNNING"]])
def test_status_that_is_no_word_counts_as_default(status: object) -> None:
    """Proto3 leaves the default out."""
    assert read_job(msgspec.json.encode({"job": {"id": "1", "status": status}})).status == "DEFAULT"


@pytest.mark.parametrize("job_id", [7, "7"])
def test_id_is_text_whether_number_or_string(job_id: object) -> None:
    """64-bit integers travel as strings; both forms are accepted."""
    assert read_job(msgspec.json.encode({"job": {"id": job_id}})).job_id == "7"


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        ("3", 3),
        (3, 3),
        (3.0, 3),
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("nan", 0),
        ("inf", 0),
        ({}, 0),
        (2**40, 2**40),
    ],
)
def test_queue_rank_is_read_as_number_or_string(rank: object, expected: int) -> None:
    """What is no number counts as zero."""
    body = json.dumps({"job": {"id": "1", "status": "WAITING", "waitingInfo": {"queueRank": rank}}}).encode()

    assert read_job(body).queue_rank == expected


def test_queue_rank_beyond_all_numbers_counts_as_zero() -> None:
    """A number of four hundred digits does not stop the looks."""
    body = b'{"job": {"id": "1", "status": "WAITING", "waitingInfo": {"queueRank": %s}}}' % (b"9" * 400)

    assert read_job(body).queue_rank == 0


def test_first_in_queue_has_rank_zero() -> None:
    """Proto3 leaves zero out: a waiting job without a rank is the next."""
    assert view("WAITING", waitingInfo={"queueLen": "5"}).queue_rank == 0


def test_only_a_waiting_job_has_a_queue_rank() -> None:
    """A rank left over in another status means nothing."""
    assert view("RUNNING", waitingInfo={"queueRank": "5"}).queue_rank is None


@pytest.mark.parametrize(
    ("told", "progress"),
    [
        (0, 0.0),
        (0.25, 0.25),
        (1, 1.0),
        (25, 0.25),
        (100, 1.0),
        (250, 1.0),
        (-3, 0.0),
        ("0.5", 0.5),
        ("50", 0.5),
        (None, 0.0),
        (True, 1.0),
    ],
)
def test_progress_is_a_part_of_one_whether_told_to_one_or_to_a_hundred(told: object, progress: float) -> None:
    """Which of the two TAMS does is not known."""
    assert running_view(workflowFinishItem={"progress": told}).progress == progress


def test_furthest_progress_told_anywhere_counts() -> None:
    """Of the workflow or of any image."""
    images = [{"progress": 0.2}, {"progress": 0.7}, "?", {}]

    assert running_view(workflowFinishItem={"progress": 0.4}, processingImages=images).progress == 0.7


@pytest.mark.parametrize("info", [None, [], "x", {"workflowFinishItem": 3, "processingImages": {}}])
def test_missing_running_info_means_nothing_is_done(info: object) -> None:
    """Missing, empty or of another shape: zero."""
    found = view("RUNNING", runningInfo=info)

    assert (found.progress, found.finished_nodes) == (0.0, 0)


def test_nodes_marked_false_are_not_finished() -> None:
    """Only the nodes that are done count."""
    assert running_view(workflowFinishItem={"finishedNodes": {"1": True, "2": False, "3": True}}).finished_nodes == 2


@pytest.mark.parametrize(
    ("info", "failure"),
    [
        (
            {"code": "TRANSITORY_ERROR", "reason": "node lost"},
            Failure(code="TRANSITORY_ERROR", message="node lost", retryable=True),
        ),
        ({"code": "FATAL_ERROR", "reason": "bad model"}, Failure(code="FATAL_ERROR", message="bad model")),
        ({"reason": ""}, Failure(code="DEFAULT", message="TAMS gave no reason")),
        (None, Failure(code="DEFAULT", message="TAMS gave no reason")),
        ({"code": 2, "reason": 7}, Failure(code="DEFAULT", message="TAMS gave no reason")),
    ],
)
def test_failed_job_says_why(info: object, failure: Failure) -> None:
    """Only TRANSITORY_ERROR may be tried again."""
    assert view("FAILED", failedInfo=info).failure == failure


def test_only_a_failed_job_has_a_failure() -> None:
    """An empty `failedInfo` beside a success is no failure."""
    assert view("SUCCESS", failedInfo={"code": "FATAL_ERROR"}).failure is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"job": null}',
        b'{"job": "7"}',
        b'{"job": {"status": "RUNNING"}}',
        b'{"job": {"id": ""}}',
        b'{"job": {"id": null}}',
        b'{"job": {"id": true}}',
        b'{"job": {"id": "1", "x": "\xff"}}',
        b'{"job": {"id": "1", "x": "\\ud800 cut"}}',
        b'{"job": {"id": "1", "x": NaN}}',
        b'{"job": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        SUCCESS_DOCUMENT[:-9],
    ],
)
def test_what_is_no_job_is_refused(body: bytes) -> None:
    """A half or foreign answer is told from a job."""
    with pytest.raises(UnreadableDocument):
        read_job(body)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just("9" * 400)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("id", "status", "waitingInfo", "queueRank", "runningInfo", "processingImages", "progress", "more"),
        *("workflowFinishItem", "finishedNodes", "failedInfo", "code", "reason"),
    ]
)
STATUSES = st.sampled_from(["DEFAULT", "CREATED", "WAITING", "RUNNING", "SUCCESS", "FAILED", "CANCELED"])
NESTED = st.recursive(JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=10)
DOCUMENTS = st.builds(
    lambda fields, status: {"id": "7", "status": status, **fields}, st.dictionaries(NAMES, NESTED, max_size=6), STATUSES
)


def read_or_refuse(body: bytes) -> None:
    try:
        found = read_job(body)
    except UnreadableDocument:
        return
    assert 0.0 <= found.progress <= 1.0
    assert bytes(found.document) in body
    assert msgspec.json.decode(found.document) == msgspec.json.decode(body)["job"]


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Whatever a proxy answers in TAMS' place."""
    read_or_refuse(body)


@given(DOCUMENTS)
def test_any_job_is_read_or_refused(job: dict[str, object]) -> None:
    """Whatever TAMS puts into its fields one day, NaN included."""
    read_or_refuse(json.dumps({"job": job}).encode())


@given(DOCUMENTS.filter(lambda job: job["id"] == "7"))
def test_a_job_of_json_alone_keeps_every_byte(job: dict[str, object]) -> None:
    """Read, and handed on as it came."""
    written = msgspec.json.encode(job)

    assert bytes(read_job(b'{"job": %s, "more": 1}' % written).document) == written


@pytest.mark.parametrize("job_id", ["..", ".", "a\nb", "a\x00", "7" * 256, 10**300])
def test_id_that_a_url_cannot_hold_is_none(job_id: object) -> None:
    """It would lead looks and cancels to another place, or nowhere."""
    with pytest.raises(UnreadableDocument, match="printable"):
        read_job(json.dumps({"job": {"id": job_id}}).encode())


def test_longest_id_is_one() -> None:
    assert read_job(json.dumps({"job": {"id": "7" * 255}}).encode()).job_id == "7" * 255


@pytest.mark.parametrize("field", [b"extra", b"id"])
def test_document_that_is_only_just_read_here_is_none(field: bytes) -> None:
    """Parsers read as deep as the calls around them leave room: a ledger that held it could not be read again."""
    deep = b'{"job": {"%s": %s, "id": "7"}}' % (field, b"[" * 850 + b"]" * 850)
    fair = b'{"job": {"%s": %s, "id": "7"}}' % (field, b"[" * 150 + b"]" * 150)

    with pytest.raises(UnreadableDocument, match="recursion"):
        read_job(deep)
    assert read_job(fair).job_id == "7"


def test_failure_with_an_empty_code_has_the_default_one() -> None:
    assert view("FAILED", failedInfo={"code": ""}).failure == Failure(code="DEFAULT", message="TAMS gave no reason")
