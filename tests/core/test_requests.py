import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.requests import CancelArrival, JobArrival, read_request
from bridge.errors import UnreadableRequest
from bridge.messages import DeadLetterReason, is_request_id
from bridge.ports import Arrival
from tests.core.examples import LIMIT, read

GRAPH = b'{ "3" : {"classType":"KSampler", "inputs":{"seed":1e2,"text":"\xc3\xa9"}} }'


def arrival(value: bytes | None, key: bytes | None = None, *headers: tuple[str, bytes | None]) -> Arrival:
    return Arrival(offset=12, key=key, value=value, headers=headers)


def job(value: bytes, key: bytes | None = None, *headers: tuple[str, bytes | None]) -> JobArrival:
    found = read(arrival(value, key, *headers))
    assert isinstance(found, JobArrival)
    return found


def refusal(value: bytes | None, key: bytes | None = None) -> UnreadableRequest:
    with pytest.raises(UnreadableRequest) as raised:
        read(arrival(value, key))
    return raised.value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, DeadLetterReason.EMPTY, id="no value"),
        pytest.param(b"", DeadLetterReason.EMPTY, id="empty value"),
        pytest.param(b'{"params": {', DeadLetterReason.INVALID_JSON, id="cut off"),
        pytest.param(b'{"params": {}} {}', DeadLetterReason.INVALID_JSON, id="more after the end"),
        pytest.param(b"params: {}", DeadLetterReason.INVALID_JSON, id="YAML"),
        pytest.param(b'\xef\xbb\xbf{"params": {}}', DeadLetterReason.INVALID_JSON, id="byte order mark"),
        pytest.param(b'{"params": {"3": "\xff"}}', DeadLetterReason.INVALID_JSON, id="value not UTF-8"),
        pytest.param(b'{"params": {}, "\xff": 1}', DeadLetterReason.INVALID_JSON, id="name not UTF-8"),
        pytest.param(b'{"params": {"3": "\\ud800"}}', DeadLetterReason.INVALID_JSON, id="lone surrogate"),
        pytest.param(b'{"params": {"3": "\\ud800 and more text"}}', DeadLetterReason.INVALID_JSON, id="surrogate"),
        pytest.param(b'{"params": {"3": NaN}}', DeadLetterReason.INVALID_JSON, id="NaN"),
        pytest.param(b'{"params": {"3": -Infinity}}', DeadLetterReason.INVALID_JSON, id="infinity"),
        pytest.param(b'{"params": {"3": %s}}' % (b"9" * 6_000), DeadLetterReason.INVALID_JSON, id="endless number"),
        pytest.param(
            b'{"params": {"3": %s}}' % (b"[" * 500 + b"]" * 500), DeadLetterReason.INVALID_JSON, id="deep nesting"
        ),
        pytest.param(
            b'{"params": %s}' % (b"[" * 40_000 + b"]" * 40_000), DeadLetterReason.INVALID_JSON, id="very deep nesting"
        ),
        pytest.param(b'["params"]', DeadLetterReason.INVALID_REQUEST, id="a list"),
        pytest.param(b"null", DeadLetterReason.INVALID_REQUEST, id="null"),
        pytest.param(b'"order-1"', DeadLetterReason.INVALID_REQUEST, id="text"),
        pytest.param(b"{}", DeadLetterReason.INVALID_REQUEST, id="no params"),
        pytest.param(b'{"params": null}', DeadLetterReason.INVALID_REQUEST, id="params null"),
        pytest.param(b'{"params": [1]}', DeadLetterReason.INVALID_REQUEST, id="params a list"),
        pytest.param(b'{"params": "{}"}', DeadLetterReason.INVALID_REQUEST, id="params text"),
        pytest.param(b'{"params": {}, "cancel": "a"}', DeadLetterReason.INVALID_REQUEST, id="params and cancel"),
        pytest.param(b'{"params": {}, "labels": {"a": 1}}', DeadLetterReason.INVALID_REQUEST, id="label a number"),
        pytest.param(b'{"params": {}, "labels": {"a": null}}', DeadLetterReason.INVALID_REQUEST, id="label null"),
        pytest.param(b'{"params": {}, "labels": []}', DeadLetterReason.INVALID_REQUEST, id="labels a list"),
        pytest.param(b'{"params": {}, "deadline_s": "9"}', DeadLetterReason.INVALID_REQUEST, id="deadline text"),
        pytest.param(b'{"params": {}, "deadline_s": 0}', DeadLetterReason.INVALID_REQUEST, id="deadline zero"),
        pytest.param(b'{"params": {}, "deadline_s": true}', DeadLetterReason.INVALID_REQUEST, id="deadline true"),
        pytest.param(b'{"params": {}, "deadline_s": 1e300}', DeadLetterReason.INVALID_REQUEST, id="deadline far"),
        pytest.param(b'{"params": {}, "deadline_s": 1e999}', DeadLetterReason.INVALID_REQUEST, id="deadline endless"),
        pytest.param(b'{"params": {}, "max_attempts": 0}', DeadLetterReason.INVALID_REQUEST, id="no attempts"),
        pytest.param(b'{"params": {}, "max_attempts": 101}', DeadLetterReason.INVALID_REQUEST, id="too many attempts"),
        pytest.param(b'{"params": {}, "max_attempts": 1.5}', DeadLetterReason.INVALID_REQUEST, id="half an attempt"),
        pytest.param(b'{"params": {}, "priority": 10}', DeadLetterReason.INVALID_REQUEST, id="priority above all"),
        pytest.param(b'{"params": {}, "priority": -1}', DeadLetterReason.INVALID_REQUEST, id="priority below all"),
        pytest.param(b'{"params": {}, "priority": "high"}', DeadLetterReason.INVALID_REQUEST, id="priority a word"),
        pytest.param(b'{"params": {}, "webhook": "x"}', DeadLetterReason.INVALID_REQUEST, id="webhook text"),
        pytest.param(
            b'{"params": {}, "webhook": {"url": "file:///etc/passwd"}}', DeadLetterReason.INVALID_REQUEST, id="file URL"
        ),
        pytest.param(b'{"params": {}, "request_id": ""}', DeadLetterReason.INVALID_REQUEST_ID, id="id empty"),
        pytest.param(b'{"params": {}, "request_id": 5}', DeadLetterReason.INVALID_REQUEST_ID, id="id a number"),
        pytest.param(b'{"params": {}, "requestId": "a\\nb"}', DeadLetterReason.INVALID_REQUEST_ID, id="id newline"),
        pytest.param(b'{"params": {}, "request_id": "\\u0000"}', DeadLetterReason.INVALID_REQUEST_ID, id="id control"),
        pytest.param(
            b'{"params": {}, "request_id": "%s"}' % (b"x" * 256), DeadLetterReason.INVALID_REQUEST_ID, id="id too long"
        ),
        pytest.param(b'{"cancel": ""}', DeadLetterReason.INVALID_REQUEST_ID, id="cancel empty"),
        pytest.param(b'{"cancel": 5}', DeadLetterReason.INVALID_REQUEST_ID, id="cancel a number"),
        pytest.param(b'{"cancel": ["a"]}', DeadLetterReason.INVALID_REQUEST_ID, id="cancel a list"),
        pytest.param(b'{"cancel": "a\\r"}', DeadLetterReason.INVALID_REQUEST_ID, id="cancel with line break"),
    ],
)
def test_what_can_never_become_a_job_is_refused_with_its_reason(value: bytes | None, reason: DeadLetterReason) -> None:
    """Every bad input has one defined outcome, named by a stable word."""
    assert refusal(value).reason == reason


def test_value_above_the_limit_is_refused_unread() -> None:
    """Five megabytes are not parsed to find out that they are too many."""
    assert refusal(b"{" * 5_000_000).reason == DeadLetterReason.TOO_LARGE


def test_value_at_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    assert job(b'{"params": {}}'.ljust(LIMIT)).params == b"{}"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b'{"labels": {}}', "params"),
        (b'{"params": {}, "max_attempts": 0}', "max_attempts"),
        (b'{"params": {}, "labels": {"tenant": 7}}', "labels.tenant"),
        (b'{"params": {}, "maxAttempts": 0}', "maxAttempts"),
    ],
)
def test_refusal_names_the_field(value: bytes, named: str) -> None:
    """Whoever reads the dead letter need not guess."""
    assert refusal(value).detail.startswith(f"{named}: ")


def test_refusal_of_many_fields_shows_the_first_and_counts_the_rest() -> None:
    """A detail stays readable."""
    labels = {str(number): number for number in range(10)}

    detail = refusal(msgspec.json.encode({"params": {}, "labels": labels})).detail

    assert detail.endswith("; and 7 more")


def test_refusal_with_endless_names_stays_short() -> None:
    """The detail becomes a header of the dead letter, however long the names in the request are."""
    value = msgspec.json.encode({"params": {}, "labels": {"x" * 50_000: 1}})

    assert len(refusal(value).detail) <= 500


@pytest.mark.parametrize("request_id", ["a.b", "order-1041", "Grüße 7", "名前", "x" * 255])
def test_printable_ids_are_taken_as_they_are(request_id: str) -> None:
    """A dot, a space and other scripts are no harm."""
    assert job(msgspec.json.encode({"params": {}, "request_id": request_id})).request_id == request_id


def test_id_in_the_value_comes_before_the_key() -> None:
    """What the request says of itself is meant most."""
    assert job(b'{"params": {}, "request_id": "own"}', b"key", ("ce_id", b"event")).request_id == "own"


def test_key_comes_before_the_event_id() -> None:
    """The key decides the partition, and so is the id of the request."""
    assert job(b'{"params": {}}', b"key", ("ce_id", b"event")).request_id == "key"


@pytest.mark.parametrize("key", [None, b""])
def test_event_id_serves_where_there_is_no_key(key: bytes | None) -> None:
    """A CloudEvent brings its id along."""
    headers = (("other", b"x"), ("ce_id", None), ("ce_id", b"event"))

    assert job(b'{"params": {}}', key, *headers).request_id == "event"


def test_position_serves_where_nothing_else_does() -> None:
    """Every request has an id, the same however often it is read."""
    assert job(b'{"params": {}}').request_id == "tams.requests-4-12"


def test_id_null_counts_as_none() -> None:
    """Null means absent."""
    assert job(b'{"params": {}, "request_id": null}', b"key").request_id == "key"


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a\nb", b"\x00", b"x" * 256, "a\u2028b".encode()])
def test_key_that_cannot_be_an_id_is_refused(key: bytes) -> None:
    """A key that is not printable text is not bent into an id."""
    assert refusal(b'{"params": {}}', key).reason == DeadLetterReason.INVALID_REQUEST_ID


def test_key_that_cannot_be_an_id_is_no_harm_to_a_request_that_has_one() -> None:
    """Kafka allows any bytes as a key."""
    assert job(b'{"params": {}, "request_id": "own"}', b"\xff").request_id == "own"


def test_event_id_that_cannot_be_an_id_is_refused() -> None:
    """A line break would break headers."""
    with pytest.raises(UnreadableRequest, match="ce_id"):
        read(arrival(b'{"params": {}}', None, ("ce_id", b"a\nb")))


def test_params_are_handed_on_byte_for_byte() -> None:
    """White space, number notation and other scripts stay as they were written."""
    assert job(b'{"labels": {}, "params":' + GRAPH + b"}").params == GRAPH


def test_last_of_two_params_counts_for_check_and_hand_over_alike() -> None:
    """What was checked is what is sent."""
    found = job(b'{"params": {"a": 1}, "params": {"b": 2}}')

    assert (found.params, found.request.params) == (b'{"b": 2}', {"b": 2})


def test_last_of_two_params_is_checked() -> None:
    """A second `params` cannot smuggle in what the first would not be allowed."""
    assert refusal(b'{"params": {}, "params": 5}').reason == DeadLetterReason.INVALID_REQUEST


def test_nulls_inside_the_graph_stay() -> None:
    """Null means absent at the top only; the graph is TAMS' business."""
    assert job(b'{"params": {"3": null}}').params == b'{"3": null}'


def test_null_means_absent_for_every_field() -> None:
    """As in proto3 JSON."""
    plain = job(b'{"params": {}}').request
    nulls = b'"labels": null, "webhook": null, "deadline_s": null, "maxAttempts": null, "cancel": null, "more": null'

    assert job(b'{"params": {}, ' + nulls + b"}").request == plain


@pytest.mark.parametrize(
    "value",
    [
        b'{"params": {}, "request_id": "a", "deadline_s": 1.5, "max_attempts": 2}',
        b'{"params": {}, "requestId": "a", "deadlineS": 1.5, "maxAttempts": 2}',
    ],
    ids=["snake", "camel"],
)
def test_snake_and_camel_case_are_read_alike(value: bytes) -> None:
    """Both notations of proto3 JSON."""
    found = job(value).request

    assert (found.request_id, found.deadline_s, found.max_attempts) == ("a", 1.5, 2)


def test_labels_and_webhook_are_read() -> None:
    """They travel with the job."""
    webhook = b'{"url": "https://x/h", "events": ["failed"]}'

    found = job(b'{"params": {}, "labels": {"t": "a"}, "webhook": %s}' % webhook).request

    assert found.webhook is not None
    assert (found.labels, str(found.webhook.url), found.webhook.events) == ({"t": "a"}, "https://x/h", ("failed",))


def test_unknown_fields_are_ignored_and_named() -> None:
    """A typo is told, not punished."""
    assert job(b'{"params": {}, "colour": 3, "dedline_s": 4}').request.unknown_fields == ("colour", "dedline_s")


def test_cancel_is_read() -> None:
    """A cancel is its request id and nothing else."""
    assert read(arrival(b'{"cancel": "order.1", "params": null}')) == CancelArrival("order.1")


def test_trace_and_correlation_headers_are_copied_and_no_others() -> None:
    """Traces go on through the bridge; the rest is not ours to spread."""
    kept = (("traceparent", b"00-1"), ("Correlation_ID", b"c"), ("x-correlation-id", b"d"))

    found = job(b'{"params": {}}', None, *kept, ("authorization", b"secret"), ("ce_id", b"e"))

    assert found.headers == {"traceparent": "00-1", "Correlation_ID": "c", "x-correlation-id": "d"}


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"a\nb", b"x" * 1_025])
def test_headers_that_are_no_short_text_are_not_copied(value: bytes | None) -> None:
    """A broken header is left out rather than changed."""
    assert job(b'{"params": {}}', None, ("traceparent", value)).headers == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "params", "cancel", "request_id", "requestId", "labels", "webhook", "deadline_s", "deadlineS", "max_attempts",
    "maxAttempts", "url", "events", "other",
]  # fmt: skip
REQUESTS = st.dictionaries(st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=6)
KEYS = st.none() | st.binary(max_size=8) | st.text(max_size=8).map(str.encode)


def read_or_refuse(value: bytes, key: bytes | None) -> None:
    """Fails for any error but the one that is meant, and for promises broken by what was read."""
    found: JobArrival | CancelArrival | UnreadableRequest
    try:
        found = read_request(arrival(value, key, ("ce_id", key)), topic="t", partition=0, max_bytes=LIMIT)
    except UnreadableRequest as error:
        found = error
    if isinstance(found, UnreadableRequest):
        assert found.reason in set(DeadLetterReason)
        assert 0 < len(found.detail.encode()) <= 2_000
        return
    assert is_request_id(found.request_id)
    if isinstance(found, JobArrival):
        assert found.params in value
        assert isinstance(msgspec.json.decode(found.params), dict)


@given(value=st.binary(max_size=60), key=KEYS)
def test_any_bytes_are_read_or_refused(value: bytes, key: bytes | None) -> None:
    """Nothing in a record stops its partition."""
    read_or_refuse(value, key)


@given(value=REQUESTS | JSON, key=KEYS)
def test_any_json_is_read_or_refused(value: object, key: bytes | None) -> None:
    """Nor does anything that is JSON."""
    read_or_refuse(msgspec.json.encode(value), key)


@given(value=REQUESTS, cut=st.integers(0, 200), junk=st.binary(max_size=3), key=KEYS)
def test_any_damaged_request_is_read_or_refused(
    value: dict[str, object], cut: int, junk: bytes, key: bytes | None
) -> None:
    """Nor does a request that was damaged on its way."""
    written = msgspec.json.encode({"params": {"3": {}}, **value})

    read_or_refuse(written[:cut] + junk + written[cut + len(junk) :], key)


def test_labels_that_would_not_fit_into_every_event_are_refused() -> None:
    """An event longer than its topic allows could never be committed, and would stop the partition for good."""
    labels = {f"label-{number}": "x" * 1000 for number in range(17)}

    refused = refusal(msgspec.json.encode({"params": {}, "labels": labels}))

    assert refused.reason == DeadLetterReason.INVALID_REQUEST
    assert "labels are at most" in refused.detail


def test_only_the_first_unknown_fields_are_told() -> None:
    """The accepted event names a slip of the pen, not a document."""
    request = {"params": {}, **{f"{number:03}" + "x" * 200: 1 for number in range(30)}}

    told = job(msgspec.json.encode(request)).request.unknown_fields

    assert [name[:3] for name in told] == [f"{number:03}" for number in range(20)]
    assert {len(name) for name in told} == {100}


def test_graphs_of_the_same_node_classes_are_of_one_kind_whatever_their_inputs() -> None:
    """Both spellings count, and what is no node is passed over."""
    first = job(b'{"params": {"1": {"classType": "A", "inputs": {"seed": 1}}, "2": {"classType": "B"}}}')
    second = job(b'{"params": {"7": {"class_type": "B"}, "9": {"class_type": "A"}, "x": 5, "y": {"classType": 1}}}')
    other = job(b'{"params": {"1": {"classType": "A"}, "2": {"classType": "B"}, "3": {"classType": "B"}}}')

    assert first.kind == second.kind
    assert first.kind != other.kind
    assert first.kind.partition("/")[0] == other.kind.partition("/")[0]


@pytest.mark.parametrize("events", [["x"] * 51, ["x" * 101]])
def test_webhook_that_names_endless_events_is_refused(events: list[str]) -> None:
    """All of its patterns are gone through at every event of the job."""
    webhook = {"url": "https://acme.example/hook", "events": events}

    error = refusal(msgspec.json.encode({"params": {}, "webhook": webhook}))

    assert error.reason == DeadLetterReason.INVALID_REQUEST
    assert error.detail.startswith("webhook.events")
