"""The receiver of `tams-bridge listen`, over real HTTP on the loopback address."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from bridge.adapters.clock import SystemClock
from bridge.core.signatures import new_secret, public_key, sign
from bridge.errors import CannotStart
from bridge.listen import MAX_BODY_BYTES, Received, SeenIds, listen
from bridge.webhook_messages import SignatureScheme
from tests.adapters.web import read_request, response, serving

SECRET = new_secret(SignatureScheme.V1, b"s" * 32)
OTHER = new_secret(SignatureScheme.V1, b"o" * 32)
PRIVATE = new_secret(SignatureScheme.V1A, b"p" * 32)
pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT = {
    "specversion": "1.0",
    "id": "order-1041.3",
    "type": "tams.job.success",
    "subject": "order-1041",
    "data": {"request_id": "order-1041"},
}
BODY = msgspec.json.encode(EVENT)
DEFAULTS: dict[str, Any] = {"secret": SECRET, "host": "127.0.0.1", "port": 0, "path": None, "forward_to": None}
PROBLEM = "no v1 signature fits"


class Listener:
    """A receiver that runs, and what it has shown."""

    def __init__(self, url: str, client: httpx.AsyncClient, shown: list[Received], task: asyncio.Task[None]) -> None:
        self.url = url
        self.shown = shown
        self.task = task
        self._client = client

    async def post(self, *secrets: str, body: bytes = BODY, path: str = "", **changes: Any) -> httpx.Response:
        """A POST signed with these secrets, or not at all; `changes` see `headers`."""
        return await self.request("POST", path, content=body, headers=headers(*secrets, body=body, **changes))

    async def request(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        return await self._client.request(method, self.url.rstrip("/") + path, **options)

    @property
    def last(self) -> Received:
        return self.shown[-1]


Listen = Callable[..., Awaitable[Listener]]


def headers(
    *secrets: str, body: bytes = BODY, sent_id: str = "msg_1", age: timedelta = timedelta(0), **more: str
) -> dict[str, str]:
    """Those of a POST; `more` are further ones, underlines for hyphens."""
    timestamp = int((SystemClock().now() - age).timestamp())
    signature = sign(secrets, webhook_id=sent_id, timestamp=timestamp, body=body) if secrets else ""
    standard = {"webhook-id": sent_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    return {
        "content-type": "application/cloudevents+json; charset=UTF-8",
        **standard,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listening() -> AsyncIterator[Listen]:
    """Start a receiver; arguments are those of `listen`, the secret is SECRET unless given.

    They end together, after the last test: each takes a moment to let connections finish.
    """
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as running:
        tasks: list[asyncio.Task[None]] = []

        async def start(**options: Any) -> Listener:
            url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            shown: list[Received] = []
            given = {**DEFAULTS, "show": shown.append, "ready": url.set_result, **options}
            tasks.append(running.create_task(listen(**given)))
            return Listener(await url, client, shown, tasks[-1])

        yield start

        await client.aclose()
        for task in tasks:
            task.cancel()


# ------------------------------------------------------------------------------------------------------------ verifying
async def test_a_signed_post_is_accepted_and_shown_as_what_it_is(listening: Listen) -> None:
    listener = await listening()

    answer = await listener.post(SECRET, path="/hook")

    assert (answer.status_code, answer.content) == (204, b"")
    shown = listener.last
    assert shown == Received(
        time=shown.time,
        path="/hook",
        webhook_id="msg_1",
        type="tams.job.success",
        request_id="order-1041",
        verified=True,
        problem="",
        repeat=False,
        body=BODY,
        status=204,
    )
    assert abs(shown.time - SystemClock().now()) < timedelta(minutes=1)
    with pytest.raises(FrozenInstanceError):
        shown.status = 200  # type: ignore[misc]  # that it cannot be done is the point


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET), (PRIVATE, SECRET)], ids=["new", "old", "v1a"])
async def test_a_post_signed_through_a_rotation_is_accepted(listening: Listen, secrets: tuple[str, ...]) -> None:
    listener = await listening()

    assert (await listener.post(*secrets)).status_code == 204


async def test_a_public_key_verifies_too(listening: Listen) -> None:
    listener = await listening(secret=public_key(PRIVATE))

    assert (await listener.post(PRIVATE)).status_code == 204
    assert (await listener.post(SECRET)).status_code == 401


@pytest.mark.parametrize(
    ("post", "why"),
    [
        ({"secret": OTHER}, PROBLEM),
        ({"content": BODY + b" "}, PROBLEM),
        ({"age": timedelta(minutes=6)}, "webhook-timestamp is 36"),
        ({"age": timedelta(minutes=-6)}, "s ahead"),
        ({"webhook_id": "msg_2"}, PROBLEM),
        ({"webhook_signature": ""}, "the header webhook-signature is missing"),
        ({"webhook_timestamp": "soon"}, "is not a number of seconds"),
        ({"webhook_signature": "\x80\xff,\xe9"}, "holds no v1 signature"),
    ],
    ids=["wrong secret", "tampered", "old", "early", "other id", "unsigned", "no time", "bytes"],
)
async def test_a_post_that_does_not_fit_is_refused_and_shown_with_the_reason(
    listening: Listen, post: dict[str, Any], why: str
) -> None:
    """The reason goes to the sender too: on a developer's machine both are the same person."""
    listener = await listening()
    content, changes = post.get("content", BODY), {key: post[key] for key in post if key not in {"content", "secret"}}
    signed = headers(post.get("secret", SECRET), **changes)
    sent = {name: value.encode("latin-1") for name, value in signed.items()}

    answer = await listener.request("POST", content=content, headers=sent)

    assert answer.status_code == 401
    assert why in answer.text
    assert (listener.last.verified, listener.last.status, listener.last.body) == (False, 401, content)
    assert answer.text.strip() == listener.last.problem


async def test_without_a_secret_posts_are_accepted_and_marked_as_not_verified(listening: Listen) -> None:
    listener = await listening(secret=None)

    assert (await listener.post(OTHER)).status_code == 204
    assert (await listener.request("POST")).status_code == 204
    assert [shown.verified for shown in listener.shown] == [None, None]


async def test_the_answer_can_be_chosen_to_see_what_the_sender_does(listening: Listen) -> None:
    """But not for POSTs that do not fit."""
    listener = await listening(answer_status=503)

    assert (await listener.post(SECRET)).status_code == 503
    assert listener.last.status == 503
    assert (await listener.post(OTHER)).status_code == 401


# -------------------------------------------------------------------------------------------------------------- repeats
async def test_a_webhook_id_that_was_here_before_is_marked(listening: Listen) -> None:
    listener = await listening()

    for sent_id in ("msg_1", "msg_2", "msg_1"):
        await listener.post(SECRET, sent_id=sent_id)

    assert [shown.repeat for shown in listener.shown] == [False, False, True]


async def test_a_forged_post_does_not_make_the_real_one_a_repeat(listening: Listen) -> None:
    listener = await listening()

    await listener.post(OTHER)
    await listener.post(SECRET)

    assert [shown.repeat for shown in listener.shown] == [False, False]


async def test_posts_without_an_id_are_no_repeats_of_each_other(listening: Listen) -> None:
    listener = await listening(secret=None)

    for _ in range(2):
        await listener.request("POST", content=b"{}")

    assert [shown.repeat for shown in listener.shown] == [False, False]


async def test_the_ids_of_late_are_remembered_and_older_ones_forgotten() -> None:
    """However long it runs, its memory stays small."""
    ids = SeenIds(2)

    assert [ids.seen(sent_id) for sent_id in "abac"] == [False, False, True, False]
    assert [ids.seen(sent_id) for sent_id in "bc"] == [True, True]
    assert not ids.seen("a")


# ------------------------------------------------------------------------------------------------- paths and handshakes
@pytest.mark.parametrize("path", ["/hook", "hook"])
async def test_only_the_path_asked_for_is_listened_to(listening: Listen, path: str) -> None:
    """A POST elsewhere is shown all the same: the usual mistake is in the URL that was registered."""
    listener = await listening(path=path)
    assert listener.url.endswith("/hook")

    assert (await listener.post(SECRET)).status_code == 204
    answer = await listener.post(SECRET, path="/more")

    assert answer.status_code == 404
    assert "taken at /hook" in answer.text
    assert (listener.last.path, listener.last.verified, listener.last.status) == ("/hook/more", None, 404)


async def test_the_handshake_of_cloudevents_is_granted(listening: Listen) -> None:
    listener = await listening()
    asked = {"webhook-request-origin": "bridge.example", "webhook-request-rate": "120"}

    granted = await listener.request("OPTIONS", headers=asked)
    unlimited = await listener.request("OPTIONS", headers={"webhook-request-origin": "bridge.example"})

    assert granted.status_code == 200
    assert granted.headers["webhook-allowed-origin"] == "bridge.example"
    assert granted.headers["webhook-allowed-rate"] == "120"
    assert "POST" in granted.headers["allow"]
    assert unlimited.headers["webhook-allowed-rate"] == "*"
    assert listener.shown == []


async def test_who_does_not_ask_gets_no_consent(listening: Listen) -> None:
    """OPTIONS is asked for other reasons, too."""
    listener = await listening(path="/hook")

    answer = await listener.request("OPTIONS")
    elsewhere = await listener.request("OPTIONS", "/more", headers={"webhook-request-origin": "bridge.example"})

    assert answer.status_code == 200
    assert "webhook-allowed-origin" not in answer.headers
    assert elsewhere.status_code == 404
    assert "webhook-allowed-origin" not in elsewhere.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_other_methods_are_told_what_this_is(listening: Listen, method: str) -> None:
    listener = await listening()

    answer = await listener.request(method)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert listener.shown == []


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_that_is_too_long_is_refused(listening: Listen, *, declared: bool) -> None:
    """Whether it says so beforehand or not."""
    listener = await listening(secret=None)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65_536):
            yield bytes(65_536)
        yield b"1"

    answer = await listener.request("POST", content=bytes(MAX_BODY_BYTES + 1) if declared else chunks())

    assert answer.status_code == 413
    assert (listener.last.status, listener.last.body) == (413, b"")
    assert "longer than 16 MiB" in listener.last.problem


async def test_the_longest_body_allowed_is_accepted(listening: Listen) -> None:
    listener = await listening()

    assert (await listener.post(SECRET, body=bytes(MAX_BODY_BYTES))).status_code == 204
    assert len(listener.last.body) == MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("body", "kind", "request_id"),
    [
        (b"", "", ""),
        (b"\xff\xfe", "", ""),
        (b"no JSON", "", ""),
        (b"[1]", "", ""),
        (b"[" * 100_000, "", ""),
        (b'{"type": 7}', "", ""),
        (b'{"type": "\xff"}', "", ""),
        (b'{"type": "shop.order.paid", "subject": "order-1"}', "shop.order.paid", ""),
        (b'{"type": "tams.job.running"}', "tams.job.running", ""),
        (b'{"type": "tams.job.\\u001b[2J\\n", "subject": "a\\u0007b"}', "tams.job.�[2J�", "a�b"),
    ],
)
async def test_any_body_is_shown_and_tells_only_what_it_holds(
    listening: Listen, body: bytes, kind: str, request_id: str
) -> None:
    """What is shown of it cannot move a terminal's cursor."""
    listener = await listening()

    assert (await listener.post(SECRET, body=body)).status_code == 204
    assert (listener.last.type, listener.last.request_id, listener.last.body) == (kind, request_id, body)


async def test_texts_of_strangers_are_shown_without_control_characters_and_cut_short(listening: Listen) -> None:
    listener = await listening(secret=None)

    await listener.post(path="/%1b[2J" + "x" * 1000, sent_id="y" * 1000)

    assert listener.last.path == "/�[2J" + "x" * 250
    assert listener.last.webhook_id == "y" * 255


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/9\r\n\r\n",
        b"POST http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["TLS", "no length", "no version", "no URL"],
)
async def test_what_is_not_http_is_refused_and_the_next_one_served(listening: Listen, garbage: bytes) -> None:
    listener = await listening()
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(listener.url).port)

    writer.write(garbage)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await listener.post(SECRET)).status_code == 204
    assert len(listener.shown) == 1


async def test_a_sender_that_leaves_halfway_is_not_shown(listening: Listen) -> None:
    listener = await listening()
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(listener.url).port)

    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf of")
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await listener.post(SECRET)).status_code == 204
    assert len(listener.shown) == 1


async def test_what_goes_wrong_in_showing_does_not_end_it(listening: Listen) -> None:
    shown: list[Received] = []

    def show(received: Received) -> None:
        shown.append(received)
        if len(shown) == 1:
            message = "the terminal is gone"
            raise OSError(message)

    listener = await listening(show=show)

    assert (await listener.post(SECRET)).status_code == 500
    assert (await listener.post(SECRET)).status_code == 204


# ----------------------------------------------------------------------------------------------------------- passing on
@asynccontextmanager
async def receiver(answer: bytes) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """Somebody's receiver with this answer; its URL, and the heads and bodies it got."""
    got: list[tuple[str, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_request(reader))
        writer.write(answer)
        await writer.drain()

    async with serving(talk) as url:
        yield url, got


async def test_a_post_is_passed_on_as_it_came(listening: Listen) -> None:
    """Same bytes, and the headers that the other side verifies; nothing that was meant for this hop."""
    async with receiver(response(200, b"fine", "content-type: text/x-mine", "connection: close")) as (url, got):
        listener = await listening(forward_to=f"{url}/api/hook?a=b")

        sent = headers(SECRET, webhook_extra="1", authorization="Bearer x", cookie="a=b")
        answer = await listener.request("POST", "/hook", content=BODY, headers=sent)

    head, body = got[0]
    lines = head.lower().split("\r\n")
    assert lines[0] == "post /api/hook?a=b http/1.1"
    assert body == BODY
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-extra", "content-type"):
        assert f"{name}: {sent[name]}".lower() in lines
    assert f"content-length: {len(BODY)}" in lines
    assert not any(line.startswith(("authorization", "cookie")) for line in lines)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"fine", "text/x-mine")
    assert (listener.last.status, listener.last.problem, listener.last.verified) == (200, "", True)


@pytest.mark.parametrize("status", [204, 302, 304, 410, 429, 500, 599])
async def test_the_answer_of_the_other_side_is_passed_back(listening: Listen, status: int) -> None:
    """A redirect as well: no sender of webhooks follows one."""
    said = response(status, b"", "retry-after: 7", "location: http://127.0.0.1:1/", "connection: close")
    async with receiver(said) as (url, got):
        listener = await listening(forward_to=url)

        answer = await listener.post(SECRET)

    assert answer.status_code == status
    assert answer.headers["retry-after"] == "7"
    assert len(got) == 1
    assert (listener.last.status, listener.last.problem) == (status, "")


async def test_a_long_answer_is_passed_back_in_part(listening: Listen) -> None:
    said = response(200, bytes(3 * 1024 * 1024), "connection: close")
    async with receiver(said) as (url, _):
        listener = await listening(forward_to=url)

        answer = await listener.post(SECRET)

    assert answer.content == bytes(1024 * 1024)


@pytest.mark.parametrize("post", [{}, {"secrets": (OTHER,)}])
async def test_a_post_that_does_not_fit_is_not_passed_on(listening: Listen, post: dict[str, Any]) -> None:
    async with receiver(response(200)) as (url, got):
        listener = await listening(forward_to=url)

        answer = await listener.post(*post.get("secrets", ()))

    assert answer.status_code == 401
    assert got == []


async def test_when_nobody_is_there_to_pass_on_to_the_answer_is_502(listening: Listen) -> None:
    """So that the sender tries again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://user:password@127.0.0.1:{taken.getsockname()[1]}/"
    listener = await listening(forward_to=url)

    answer = await listener.post(SECRET)

    assert answer.status_code == 502
    assert "not passed on: " in answer.text
    assert "password" not in answer.text
    assert (listener.last.status, listener.last.verified) == (502, True)
    assert listener.last.problem == answer.text.strip()


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"HTTP/1.1 777 Odd\r\n\r\n"],
    ids=["none", "garbage", "half", "odd"],
)
async def test_what_is_no_answer_is_answered_502(listening: Listen, answer: bytes) -> None:
    async with receiver(answer) as (url, _):
        listener = await listening(forward_to=url)

        assert (await listener.post(SECRET)).status_code == 502
    assert "passed on" in listener.last.problem


async def test_who_does_not_answer_is_not_waited_for_for_ever(
    listening: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deadline spans the whole exchange, so that dripping does not help."""
    monkeypatch.setattr("bridge.listen.FORWARD_TIMEOUT_S", 0.05)
    over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1")
        await over.wait()

    async with serving(talk) as url:
        listener = await listening(forward_to=url)

        answer = await listener.post(SECRET)

    assert answer.status_code == 502
    assert "TimeoutError" in answer.text


async def test_the_proxies_of_the_environment_are_not_asked(listening: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST to localhost must not leave the machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with receiver(response(200, b"", "connection: close")) as (url, got):
        listener = await listening(forward_to=url)

        assert (await listener.post(SECRET)).status_code == 200
    assert len(got) == 1


# ----------------------------------------------------------------------------------------------------- start and finish
async def why_not_started(**options: Any) -> str:
    """Start with these; the reason why that is impossible."""
    with pytest.raises(CannotStart) as impossible:
        await listen(**{**DEFAULTS, "show": print, "ready": print, **options})
    return str(impossible.value)


@pytest.mark.parametrize("secret", ["", SECRET[:-6], "whsec_MfKQ9r8GKYqr", PRIVATE])
async def test_a_bad_secret_is_told_at_once_and_not_shown(secret: str) -> None:
    said = await why_not_started(secret=secret)

    assert said.startswith("listen: --secret: ")
    assert not secret or secret.partition("_")[2] not in said


@pytest.mark.parametrize("url", ["", "localhost:3000", "ftp://localhost/", "http://", "http://[::1", "/hook"])
async def test_a_url_that_cannot_be_posted_to_is_told_at_once(url: str) -> None:
    assert "--forward-to takes a URL such as http://" in await why_not_started(forward_to=url)


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = await why_not_started(port=port)

    assert f"cannot listen on 127.0.0.1:{port}: " in said
    assert "--port 0" in said


async def test_an_address_that_is_none_of_this_machine_is_named() -> None:
    assert "cannot listen on 192.0.2.1:0: " in await why_not_started(host="192.0.2.1")


async def test_once_cancelled_it_has_ended_and_its_port_is_free_again(listening: Listen) -> None:
    listener = await listening()
    assert (await listener.post(SECRET)).status_code == 204

    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task

    again = await listening(port=httpx.URL(listener.url).port)
    assert (await again.post(SECRET)).status_code == 204
