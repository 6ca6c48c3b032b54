"""The receiver that other tests believe: what it says of a request must be so."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from bridge.adapters.clock import SystemClock
from bridge.core.signatures import new_secret, sign
from bridge.webhook_messages import SignatureScheme
from tests.receivers import CUT, DRIP, HANG, Receiver, receiving, reply

SECRET, OTHER = (new_secret(SignatureScheme.V1, bytes([number]) * 32) for number in (1, 2))
BODY = b'{"id": "order-1.3"}'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def post(receiver: Receiver, path: str = "/hook", *, secret: str = SECRET, body: bytes = BODY) -> httpx.Response:
    """A POST signed with a secret, over the body it should have."""
    timestamp = int(SystemClock().now().timestamp())
    signature = sign([secret], webhook_id="msg_1", timestamp=timestamp, body=BODY)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "Webhook-Signature": signature}
    async with httpx.AsyncClient(trust_env=False, timeout=0.5) as client:
        return await client.post(receiver.url + path, content=body, headers=headers)


async def test_a_request_is_written_down_as_it_arrived(receiver: Receiver) -> None:
    answer = await post(receiver, "/hook?x=1")

    (got,) = receiver.at("/hook")
    assert answer.status_code == 204
    assert (got.method, got.target, got.body, got.problem) == ("POST", "/hook?x=1", BODY, "")
    assert (got.event_id, got.webhook_id) == ("order-1.3", "msg_1")
    assert got.headers["webhook-signature"].startswith("v1,")


async def test_only_what_is_signed_with_the_secret_of_the_path_is_trusted(receiver: Receiver) -> None:
    receiver.secrets["/hook"] = SECRET

    answers = [await post(receiver), await post(receiver, secret=OTHER), await post(receiver, body=BODY + b" ")]

    assert [answer.status_code for answer in answers] == [204, 401, 401]
    assert [bool(got.problem) for got in receiver.got] == [False, True, True]


async def test_it_answers_as_told_one_request_after_the_other(receiver: Receiver) -> None:
    receiver.answers["/hook"].extend([reply(500, b"oops"), reply(429, b"", "retry-after: 7")])
    receiver.always["/hook"] = reply(410)

    first, second, third, elsewhere = [await post(receiver, path) for path in ("/hook", "/hook", "/hook", "/other")]

    assert (first.status_code, first.content) == (500, b"oops")
    assert second.headers["retry-after"] == "7"
    assert (third.status_code, elsewhere.status_code) == (410, 204)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [(HANG, httpx.ReadTimeout), (DRIP, httpx.ReadTimeout), (CUT, httpx.TransportError)],
)
async def test_it_misbehaves_as_told(receiver: Receiver, behaviour: str, error: type[Exception]) -> None:
    receiver.always["/hook"] = behaviour  # type: ignore[assignment]  # one of the words

    with pytest.raises(error):
        await post(receiver)


async def test_waiting_for_requests_that_do_not_come_tells_what_did(receiver: Receiver) -> None:
    await asyncio.gather(receiver.until(lambda: len(receiver.got) == 1), post(receiver))

    with pytest.raises(AssertionError, match=r"order-1\.3"):
        await receiver.until(lambda: len(receiver.got) == 2, seconds=0.01)
