import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.posts import CONTENT_TYPE, RESERVED_HEADERS, body_of, exchange_of, headers_of, is_custom_header
from bridge.core.signatures import Signer
from bridge.webhook_messages import Delivery
from bridge.webhook_ports import NoResponse, Response
from tests.core.webhook_examples import delivery

SOURCE = "https://bridge.example/tams"
EVENT = b'{"id":"a.1","job": {"id" : "7", "unknown":1.0}}'


def headers(**custom: str) -> dict[str, str]:
    return headers_of(webhook_id="msg_1", timestamp=1_700_000_000, signature="v1,c2ln", user_agent="us", custom=custom)


# ------------------------------------------------------------------------------------------------------------- the body


def test_body_is_a_structured_cloud_event() -> None:
    """All required attributes of CloudEvents 1.0, and the event as its data."""
    body = msgspec.json.decode(body_of(delivery("ep_a", "a", 1), EVENT, source=SOURCE))

    assert body == {
        "specversion": "1.0",
        "id": "a.1",
        "source": SOURCE,
        "type": "tams.job.success",
        "time": "2026-03-01T12:00:01+00:00",
        "subject": "a",
        "sequence": "0000000001",
        "datacontenttype": "application/json",
        "data": msgspec.json.decode(EVENT),
    }


def test_event_is_passed_on_byte_for_byte() -> None:
    """Unknown fields and the spelling of numbers included."""
    assert body_of(delivery(), EVENT, source=SOURCE).endswith(b'"data":' + EVENT + b"}")


def test_sequence_sorts_as_text() -> None:
    """The extension `sequence` is compared so."""
    bodies = [msgspec.json.decode(body_of(delivery("ep_a", "a", n), EVENT, source=SOURCE)) for n in (2, 10, 100)]

    assert sorted(body["sequence"] for body in bodies) == [body["sequence"] for body in bodies]


def test_body_is_the_same_at_every_attempt() -> None:
    """Also after another process has restored the delivery: receivers may compare."""
    first = delivery(used=0)
    restored = msgspec.json.decode(msgspec.json.encode(delivery(used=2)), type=Delivery)

    assert body_of(first, EVENT, source=SOURCE) == body_of(restored, EVENT, source=SOURCE)


# ---------------------------------------------------------------------------------------------------------- the headers


def test_headers_are_those_of_standard_webhooks() -> None:
    """Lower case, the timestamp in whole seconds."""
    assert headers() == {
        "content-type": CONTENT_TYPE,
        "user-agent": "us",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,c2ln",
    }


@given(st.dictionaries(st.sampled_from([*RESERVED_HEADERS, "webhook-id", "webhook-signature", "x-own"]), st.text()))
def test_custom_headers_never_take_the_place_of_ours(custom: dict[str, str]) -> None:
    """Whatever was let into the registry."""
    assert {**headers(**custom), **headers()} == headers(**custom)
    assert headers(**custom).keys() == custom.keys() | headers().keys()


@pytest.mark.parametrize("name", [*RESERVED_HEADERS, "Host", "WEBHOOK-ID", "webhook-anything", "Ce-Type", "ce-id"])
def test_headers_that_are_ours_or_the_connections_cannot_be_set(name: str) -> None:
    """In whatever case."""
    assert not is_custom_header(name)


@pytest.mark.parametrize("name", ["authorization", "X-Own", "webhook", "cell"])
def test_other_headers_can_be_set(name: str) -> None:
    """Receivers like to see a token."""
    assert is_custom_header(name)


# ---------------------------------------------------------------------------------------------------- what may be shown


def answer(body: bytes = b"", /, **answered: str) -> Response:
    return Response(status=200, headers=answered, body=body)


def test_custom_headers_are_masked() -> None:
    """They hold tokens more often than not."""
    sent = headers(authorization="Bearer secret")

    shown = exchange_of(sent, {"authorization"}, answer())

    assert "secret" not in str(shown)
    assert shown.request_headers["authorization"] == "***"
    assert shown.request_headers["webhook-id"] == "msg_1"


def test_signatures_are_masked_but_for_their_versions() -> None:
    """With id and timestamp of a POST at hand a signature would let it be sent again."""
    secrets = ["whsec_" + "A" * 32, "whsec_" + "B" * 32]
    signature = Signer(secrets).header(webhook_id="msg_1", timestamp=1, body=b"")

    shown = exchange_of({"webhook-signature": signature}, (), answer())

    assert shown.request_headers == {"webhook-signature": "v1,*** v1,***"}


@pytest.mark.parametrize("name", ["set-cookie", "authorization", "www-authenticate", "proxy-authenticate"])
def test_what_is_secret_in_an_answer_is_masked(name: str) -> None:
    """Cookies and challenges."""
    assert exchange_of({}, (), answer(**{name: "secret"})).response_headers == {name: "***"}


def test_answer_is_shown_in_short() -> None:
    """Its beginning tells what went wrong."""
    many = {f"h{number}": "" for number in range(100)}

    shown = exchange_of({}, (), answer(b"x" * 9_000, server="s" * 9_000, **many))

    assert (len(shown.response_body), len(shown.response_headers)) == (2_000, 40)
    assert len(shown.response_headers["server"]) == 300


def test_answer_that_is_no_text_is_shown_as_well_as_can_be() -> None:
    """And can be written down."""
    shown = exchange_of({}, (), answer(b"caf\xe9"))

    assert shown.response_body == "caf�"
    assert msgspec.json.encode(shown)


def test_without_answer_there_is_only_what_was_sent() -> None:
    """The error stands in the attempt."""
    shown = exchange_of(headers(), (), NoResponse(error="no answer within 15 s"))

    assert shown.request_headers["webhook-id"] == "msg_1"
    assert (shown.response_headers, shown.response_body) == ({}, "")
