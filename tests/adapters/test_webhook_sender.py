"""The webhook sender against real servers on the loopback address, good and bad ones."""

import asyncio
import gzip
import ipaddress
import itertools
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typing_extensions import override

from bridge.adapters.brokers import free_ports
from bridge.adapters.webhooks import HttpWebhookSender, look_up
from bridge.core.addresses import AddressPolicy, Target
from bridge.errors import CannotStart
from bridge.webhook_ports import NoResponse, Post, Response
from tests.adapters.web import answering, read_request, response, serving

KIB = 1024
PATIENT, SHORT = timedelta(seconds=10), timedelta(seconds=0.5)
TOKEN = "t0ken"
HEADERS = {"content-type": "application/cloudevents+json; charset=UTF-8", "webhook-id": "order-1.3", "x-key": TOKEN}
LOOPBACK = AddressPolicy(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))

Sender = Callable[..., HttpWebhookSender]
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def senders() -> AsyncIterator[Sender]:
    """Make senders, which may reach the loopback network unless told otherwise; arguments are those of the class."""
    async with AsyncExitStack() as stack:

        def make(policy: AddressPolicy = LOOPBACK, **arguments: Any) -> HttpWebhookSender:
            made = HttpWebhookSender(policy, **arguments)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with senders() as make:
        yield make


class Names:
    """A resolver: what each name leads to, one answer after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str] | OSError]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: Counter[str] = Counter()

    def __call__(self, name: str) -> Sequence[str]:
        self.asked[name] += 1
        given = self._answers[name]
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def post(url: str, body: bytes = b"{}", *, timeout: timedelta = PATIENT, **more: Any) -> Post:
    """A POST whose URL and headers hold a secret."""
    separator = "&" if "?" in url else "?"
    return Post(url=f"{url}{separator}key={TOKEN}", body=body, timeout=timeout, **{"headers": HEADERS, **more})


def named(url: str, name: str) -> str:
    """The same URL by another name."""
    return url.replace("127.0.0.1", name)


def failure(outcome: Response | NoResponse) -> str:
    """What went wrong; only if nothing was refused, and nothing secret said."""
    assert isinstance(outcome, NoResponse), outcome
    assert not outcome.blocked
    assert TOKEN not in outcome.error
    return outcome.error


def refusal(outcome: Response | NoResponse) -> str:
    assert isinstance(outcome, NoResponse), outcome
    assert outcome.blocked
    assert TOKEN not in outcome.error
    return outcome.error


def answered(outcome: Response | NoResponse) -> Response:
    assert isinstance(outcome, Response), outcome
    return outcome


async def until_closed(reader: Reader) -> None:
    """Read until the other side has closed or cut the connection."""
    try:
        while await reader.read(64 * KIB):
            pass
    except ConnectionResetError:
        return


# ---------------------------------------------------------------------- what is sent
async def test_a_post_arrives_byte_for_byte_with_the_callers_headers_and_hardly_any_other(sender: Sender) -> None:
    got: list[tuple[str, bytes]] = []

    async def talk(reader: Reader, writer: Writer) -> None:
        got.append(await read_request(reader))
        writer.write(response(200, b"thanks", "X-Trace: 7"))

    async with serving(talk) as url:
        outcome = await sender().send(post(f"{url}/a/../b%2Fc;d?e=%3D+%7e", b'{"\xc3\xa9": 1.10}'))

    assert outcome == Response(status=200, headers={"content-length": "6", "x-trace": "7"}, body=b"thanks")
    (head, body) = got[0]
    assert body == b'{"\xc3\xa9": 1.10}'
    assert head.split("\r\n")[0] == f"POST /a/../b%2Fc;d?e=%3D+%7e&key={TOKEN} HTTP/1.1"
    assert {line.lower() for line in head.split("\r\n")[1:] if line} == {
        f"host: {url.removeprefix('http://')}",
        "accept-encoding: identity",
        f"content-length: {len(body)}",
        *(f"{name}: {value}".lower() for name, value in HEADERS.items()),
    }


async def test_nothing_overrides_what_the_caller_gives(sender: Sender) -> None:
    given = {
        "host": "shop.example",
        "user-agent": "tams-bridge/1",
        "accept": "text/plain",
        "accept-encoding": "br",
        "content-type": "text/csv",
        "authorization": "Bearer abc",
        "cookie": "a=b",
    }
    async with answering(response(204)) as (url, heads):
        await sender().send(post(url, headers=given))

    lines = heads[0].lower().split("\r\n")
    for name, value in given.items():
        assert [line for line in lines if line.startswith(f"{name}:")] == [f"{name}: {value}".lower()]


async def test_a_handshake_is_an_options_request_without_body(sender: Sender) -> None:
    async with answering(response(200, b"", "WebHook-Allowed-Origin: *")) as (url, heads):
        outcome = await sender().send(
            post(url, b"", method="OPTIONS", headers={"webhook-request-origin": "bridge.example"})
        )

    assert answered(outcome).headers["webhook-allowed-origin"] == "*"
    assert heads[0].startswith("OPTIONS /?")
    assert "webhook-request-origin: bridge.example" in heads[0].lower()
    assert "content-length" not in heads[0].lower()


async def test_a_body_of_megabytes_arrives_whole(sender: Sender) -> None:
    got: list[bytes] = []

    async def talk(reader: Reader, writer: Writer) -> None:
        got.append((await read_request(reader))[1])
        writer.write(response(200))

    async with serving(talk) as url:
        assert answered(await sender().send(post(url, b"x" * 3_000_000))).status == 200

    assert got == [b"x" * 3_000_000]


async def test_a_header_that_http_cannot_carry_is_not_sent(sender: Sender) -> None:
    async with answering(response(200)) as (url, heads):
        outcome = await sender().send(post(url, headers={"x-key": f"{TOKEN}\r\nhost: kafka"}))

    assert failure(outcome) == "not sent: a header holds what HTTP cannot carry"
    assert heads == []


async def test_cookies_of_one_answer_are_not_sent_with_the_next_request(sender: Sender) -> None:
    async with answering(response(200, b"", "Set-Cookie: a=b; Path=/")) as (url, heads):
        same = sender()
        await same.send(post(url))
        await same.send(post(url))

    assert len(heads) == 2
    assert "cookie" not in heads[1].lower()


async def test_proxies_of_the_environment_are_ignored(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(response(200)) as (proxy, proxied), answering(response(201)) as (url, heads):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        outcome = await sender().send(post(url))

    assert answered(outcome).status == 201
    assert len(heads) == 1
    assert proxied == []


# ---------------------------------------------------------------------- what is answered
@pytest.mark.parametrize("status", [200, 204, 299, 304, 400, 410, 429, 500, 503, 599])
async def test_every_status_is_an_answer(sender: Sender, status: int) -> None:
    async with answering(response(status, b"" if status in {204, 304} else b"said", "Retry-After: 7")) as (url, _):
        outcome = answered(await sender().send(post(url)))

    assert outcome.status == status
    assert outcome.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_never_followed(sender: Sender, status: int) -> None:
    """Not even to where we might go; a redirect to a private address is the classic trick."""
    async with AsyncExitStack() as stack:
        other, reached = await stack.enter_async_context(answering(response(200)))
        redirect = response(status, b"", f"Location: {other}/inside")
        url, _ = await stack.enter_async_context(answering(redirect))
        outcome = await sender().send(post(url))

    assert answered(outcome).status == status
    assert reached == []


async def test_repeated_headers_count_by_the_last_and_odd_bytes_can_be_written_down(sender: Sender) -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nX-B: caf\xe9 \xc3\xa9\r\ncontent-length: 0\r\n\r\n"
    async with answering(raw) as (url, _):
        outcome = answered(await sender().send(post(url)))

    assert outcome.headers == {"x-a": "2", "x-b": "caf\ufffd é", "content-length": "0"}
    assert json.dumps(outcome.headers, ensure_ascii=False).encode()


async def test_only_the_beginning_of_a_huge_body_is_read_and_then_the_connection_is_closed(sender: Sender) -> None:
    closed = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"abcdefgh" * KIB)
                await writer.drain()
        except OSError:
            closed.set()

    async with serving(talk) as url:
        outcome = answered(await sender().send(post(url)))
        await closed.wait()

    assert outcome.body == b"abcdefgh" * (2 * KIB)


async def test_an_endless_chunked_body_is_cut_at_the_limit_asked_for(sender: Sender) -> None:
    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * KIB + b"\r\n")
            await writer.drain()

    async with serving(talk) as url:
        outcome = answered(await sender(response_limit=10).send(post(url)))

    assert outcome.body == b"x" * 10


async def test_a_compressed_body_is_left_as_it_came(sender: Sender) -> None:
    """A bomb of 10 MB in 10 kB stays 10 kB."""
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert len(bomb) < 16 * KIB
    async with answering(response(200, bomb, "Content-Encoding: gzip")) as (url, _):
        outcome = answered(await sender().send(post(url)))

    assert outcome.body == bomb
    assert outcome.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("after_the_head", "body"),
    [
        pytest.param(b"content-length: 100\r\n\r\nhalf", b"half", id="shorter than it said"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"half", id="chunks without an end"),
        pytest.param(b"\r\nto the end", b"to the end", id="without length"),
    ],
)
async def test_a_body_that_breaks_off_takes_nothing_from_the_status(
    sender: Sender, after_the_head: bytes, body: bytes
) -> None:
    """Who has said 200 has the event, and must not get it again for a body that nobody needs."""

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + after_the_head)

    async with serving(talk) as url:
        outcome = answered(await sender().send(post(url)))

    assert outcome.status == 200
    assert outcome.body in {body, b""}


async def test_interim_answers_are_passed_over(sender: Sender) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
    async with answering(interim + response(201)) as (url, _):
        assert answered(await sender().send(post(url))).status == 201


async def test_a_change_of_protocol_is_an_answer_and_not_talked_to(sender: Sender) -> None:
    closed = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello")
        await until_closed(reader)
        closed.set()

    async with serving(talk) as url:
        assert answered(await sender().send(post(url, timeout=SHORT))).status == 101
        await closed.wait()


# ---------------------------------------------------------------------- one deadline over everything
async def test_a_receiver_that_accepts_and_says_nothing_is_given_up(sender: Sender) -> None:
    closed = asyncio.Event()

    async def talk(reader: Reader, _: Writer) -> None:
        await until_closed(reader)
        closed.set()

    async with serving(talk) as url:
        outcome = await sender().send(post(url, timeout=SHORT))
        await closed.wait()

    assert failure(outcome) == "timed out after 0.5 s, waiting for an answer"


async def test_a_head_that_drips_is_cut_off(sender: Sender) -> None:
    """Each byte comes in time; the whole does not."""
    closed = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        gone = asyncio.ensure_future(until_closed(reader))
        while not gone.done():
            writer.write(b"a")
            await asyncio.wait({gone}, timeout=0.02)
        closed.set()

    async with serving(talk) as url:
        outcome = await sender().send(post(url, timeout=SHORT))
        await closed.wait()

    assert failure(outcome) == "timed out after 0.5 s, waiting for an answer"


async def test_a_body_that_drips_is_cut_off_and_what_came_is_the_answer(sender: Sender) -> None:
    closed = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        gone = asyncio.ensure_future(until_closed(reader))
        while not gone.done():
            writer.write(b"a")
            await asyncio.wait({gone}, timeout=0.02)
        closed.set()

    async with serving(talk) as url:
        outcome = answered(await sender().send(post(url, timeout=SHORT)))
        await closed.wait()

    assert outcome.status == 200
    assert 1 <= len(outcome.body) < 1_000
    assert set(outcome.body) == {ord("a")}


async def test_interim_answers_without_end_are_cut_off(sender: Sender) -> None:
    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.01)

    async with serving(talk) as url:
        assert failure(await sender().send(post(url, timeout=SHORT))).startswith("timed out")


async def test_a_receiver_that_never_reads_cannot_keep_the_connection(sender: Sender) -> None:
    """Closing politely would wait for it to take the rest of the body, for ever."""
    given_up, size = asyncio.Event(), 0

    async def talk(reader: Reader, _: Writer) -> None:
        nonlocal size
        await given_up.wait()
        try:
            while chunk := await reader.read(64 * KIB):
                size += len(chunk)
        except ConnectionResetError:
            pass
        seen.set()

    seen = asyncio.Event()
    async with serving(talk) as url:
        outcome = await sender().send(post(url, b"x" * 50_000_000, timeout=SHORT))
        given_up.set()
        await seen.wait()

    assert failure(outcome).startswith("timed out after 0.5 s")
    assert size < 50_000_000


async def test_a_tls_handshake_that_hangs_is_given_up(sender: Sender) -> None:
    async def talk(reader: Reader, _: Writer) -> None:
        await until_closed(reader)

    async with serving(talk) as url:
        outcome = await sender().send(post(url.replace("http:", "https:"), timeout=SHORT))

    assert failure(outcome) == "timed out after 0.5 s, connecting"


@pytest.fixture
def slow_names() -> Iterator[Callable[[str], list[str]]]:
    """A resolver whose servers do not answer before the end of the test."""
    end = threading.Event()

    def slow(name: str) -> list[str]:
        end.wait()
        raise socket.gaierror(socket.EAI_AGAIN, name)

    yield slow
    end.set()


async def test_a_name_whose_servers_hang_is_given_up(sender: Sender, slow_names: Callable[[str], list[str]]) -> None:
    outcome = await sender(look_up=slow_names).send(post("http://hooks.example/", timeout=SHORT))

    assert failure(outcome) == "timed out after 0.5 s, looking up the name"


# ---------------------------------------------------------------------- what receivers do wrong
def _reset(writer: Writer) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close_at_once(_: Reader, __: Writer) -> None:
    pass


async def _close_after_the_request(reader: Reader, _: Writer) -> None:
    await read_request(reader)


async def _close_within_the_head(reader: Reader, writer: Writer) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")


async def _reset_after_the_request(reader: Reader, writer: Writer) -> None:
    await read_request(reader)
    _reset(writer)


@pytest.mark.parametrize(
    "talk", [_close_at_once, _close_after_the_request, _close_within_the_head, _reset_after_the_request]
)
async def test_a_connection_that_ends_without_an_answer_is_none(
    sender: Sender, talk: Callable[[Reader, Writer], Awaitable[None]]
) -> None:
    async with serving(talk) as url:
        said = failure(await sender().send(post(url)))

    assert said in {"connection closed before an answer", "connection reset by peer"}


@pytest.mark.parametrize(
    ("garbage", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
        (b"\0\1\2\3\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 " + b"O" * 10_000 + b"\r\n\r\n", "the answer's head is too long"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 10_000 + b"\r\n\r\n", "the answer's head is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 200 + b"\r\n", "the answer's head is too long"),
    ],
)
async def test_an_answer_that_is_no_http_is_none(sender: Sender, garbage: bytes, said: str) -> None:
    async with answering(garbage) as (url, _):
        assert failure(await sender().send(post(url))) == said


@pytest.mark.parametrize("endless", [b"a" * KIB, b"x: " + b"a" * 100 + b"\r\n"], ids=["one header", "many headers"])
async def test_a_head_without_end_is_cut_off_before_the_deadline(sender: Sender, endless: bytes) -> None:
    closed = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        try:
            while True:
                writer.write(endless)
                await writer.drain()
        except OSError:
            closed.set()

    async with serving(talk) as url:
        said = failure(await sender().send(post(url)))
        await closed.wait()

    assert said == "the answer's head is too long"


async def test_a_port_where_nobody_listens(sender: Sender) -> None:
    (port,) = free_ports(1)

    assert failure(await sender().send(post(f"http://127.0.0.1:{port}/"))) == "connection refused"
    two = sender(look_up=Names(hooks_example=[["127.0.0.1", "127.0.0.2"]]))
    assert failure(await two.send(post(f"http://hooks.example:{port}/"))) == "connection refused"


# ---------------------------------------------------------------------- connections that are kept
@asynccontextmanager
async def keeping(requests_each: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers so many requests on a connection and closes it on the next; requests by connection."""
    connections: list[int] = []

    async def talk(reader: Reader, writer: Writer) -> None:
        mine = len(connections)
        connections.append(0)
        while True:
            try:
                await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            connections[mine] += 1
            if connections[mine] > requests_each:
                return
            writer.write(response(200))

    async with serving(talk) as url:
        yield url, connections


async def test_requests_one_after_the_other_share_a_connection(sender: Sender) -> None:
    async with keeping(1_000) as (url, connections):
        same = sender()
        for _ in range(5):
            answered(await same.send(post(url)))

    assert connections == [5]


async def test_a_kept_connection_that_is_closed_meanwhile_is_no_failure(sender: Sender) -> None:
    """The receiver is well; the request goes out again on a new connection."""
    async with keeping(1) as (url, connections):
        same = sender()
        for _ in range(3):
            answered(await same.send(post(url)))

    assert connections == [2, 2, 1]


async def test_many_kept_connections_that_are_closed_meanwhile_are_no_failure(sender: Sender) -> None:
    async with keeping(1) as (url, connections):
        same = sender()
        await asyncio.gather(*(same.send(post(url)) for _ in range(10)))
        answered(await same.send(post(url)))

    assert connections == [2] * 10 + [1]


async def test_a_new_connection_that_is_closed_is_not_tried_again(sender: Sender) -> None:
    async with keeping(0) as (url, connections):
        failure(await sender().send(post(url)))

    assert connections == [1]


async def test_two_hundred_at_once_each_get_their_own_answer(sender: Sender) -> None:
    async def talk(reader: Reader, writer: Writer) -> None:
        while True:
            try:
                _, body = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(response(200, body[::-1]))

    async with serving(talk) as url:
        same = sender()
        outcomes = await asyncio.gather(*(same.send(post(url, f"event {number}".encode())) for number in range(200)))

    assert [answered(outcome).body[::-1] for outcome in outcomes] == [f"event {n}".encode() for n in range(200)]


async def test_hanging_receivers_hold_nothing_that_others_need(sender: Sender) -> None:
    async def hang(reader: Reader, _: Writer) -> None:
        await until_closed(reader)

    async with serving(hang) as dead, answering(response(200)) as (url, _):
        same = sender()
        hanging = [asyncio.create_task(same.send(post(dead))) for _ in range(150)]
        outcome = await same.send(post(url))
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    assert answered(outcome).status == 200


async def test_closing_while_requests_are_under_way_fails_them_without_raising() -> None:
    begun = asyncio.Event()

    async def hang(reader: Reader, _: Writer) -> None:
        begun.set()
        await until_closed(reader)

    async with serving(hang) as url:
        sender = HttpWebhookSender(LOOPBACK)
        under_way = asyncio.create_task(sender.send(post(url)))
        await begun.wait()
        await sender.aclose()
        assert failure(await under_way) == "connection closed before an answer"


async def test_closing_while_names_are_looked_up_fails_those_in_line_without_raising() -> None:
    all_busy, end, counting = asyncio.Event(), threading.Event(), itertools.count(1)
    loop = asyncio.get_running_loop()

    def slow(name: str) -> list[str]:
        if next(counting) == 64:
            loop.call_soon_threadsafe(all_busy.set)
        end.wait()
        raise socket.gaierror(socket.EAI_AGAIN, name)

    sender = HttpWebhookSender(LOOPBACK, look_up=slow)
    under_way = [asyncio.create_task(sender.send(post(f"http://hooks-{number}.example/"))) for number in range(70)]
    await all_busy.wait()

    await sender.aclose()
    end.set()
    said = Counter(failure(outcome) for outcome in await asyncio.gather(*under_way))

    assert said == {"name does not resolve": 6, "name cannot be resolved at present": 64}


# ---------------------------------------------------------------------- cancelling
async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_while_connecting_leaves_the_sender_as_good_as_new(sender: Sender) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def hang(reader: Reader, _: Writer) -> None:
        begun.set()
        await until_closed(reader)
        closed.set()

    async with serving(hang) as dead, answering(response(200)) as (url, _):
        same = sender()
        for _ in range(20):
            begun.clear()
            closed.clear()
            connecting = asyncio.create_task(same.send(post(dead.replace("http:", "https:"))))
            await begun.wait()
            await _cancel(connecting)
            await closed.wait()
        assert answered(await same.send(post(url))).status == 200


async def test_cancelling_while_waiting_closes_the_connection(sender: Sender) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        begun.set()
        await until_closed(reader)
        closed.set()

    async with serving(talk) as url:
        waiting = asyncio.create_task(sender().send(post(url)))
        await begun.wait()
        await _cancel(waiting)
        await closed.wait()


async def test_who_waits_for_the_same_name_is_not_cancelled_along(sender: Sender) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(_: str) -> list[str]:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return ["127.0.0.1"]

    async with answering(response(200)) as (url, _):
        same = sender(look_up=slow)
        first, second = (asyncio.create_task(same.send(post(named(url, "hooks.example")))) for _ in range(2))
        await begun.wait()
        await _cancel(first)
        go_on.set()
        assert answered(await second).status == 200


async def test_a_look_up_that_fails_when_nobody_waits_any_more_is_silent(
    sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    names = Names(good_example=[["127.0.0.1"]])

    def slow(name: str) -> Sequence[str]:
        if name == "good.example":
            return names(name)
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        raise socket.gaierror(socket.EAI_NONAME, name)

    async with answering(response(200)) as (url, _):
        same = sender(look_up=slow)
        waiting = asyncio.create_task(same.send(post("http://hooks.example/")))
        await begun.wait()
        await _cancel(waiting)
        go_on.set()
        assert answered(await same.send(post(named(url, "good.example")))).status == 200

    assert caplog.records == []


# ---------------------------------------------------------------------- names, and the guard
async def test_host_stays_the_name_whatever_address_is_dialled(sender: Sender) -> None:
    async with answering(response(200)) as (url, heads):
        by_name = sender(look_up=Names(hooks_example=[["127.0.0.1"]]))
        answered(await by_name.send(post(named(url, "Hooks.example"))))

    assert f"host: hooks.example:{url.rpartition(':')[2]}" in heads[0].lower()


async def test_an_address_where_nobody_listens_is_passed_over_for_the_next(sender: Sender) -> None:
    async with answering(response(200)) as (url, _):
        by_name = sender(look_up=Names(hooks_example=[["127.0.0.9", "127.0.0.8", "127.0.0.1"]]))

        assert answered(await by_name.send(post(named(url, "hooks.example")))).status == 200


async def test_of_a_name_with_very_many_addresses_only_the_first_are_dialled(sender: Sender) -> None:
    async with answering(response(200)) as (url, heads):
        many = [f"127.0.0.{number}" for number in range(2, 100)]
        by_name = sender(look_up=Names(hooks_example=[[*many, "127.0.0.1"]]))

        assert failure(await by_name.send(post(named(url, "hooks.example")))) == "connection refused"

    assert heads == []


async def test_many_posts_to_one_name_look_it_up_once(sender: Sender) -> None:
    names = Names(hooks_example=[["127.0.0.1"]])
    async with answering(response(200)) as (url, _):
        same = sender(look_up=names)
        await asyncio.gather(*(same.send(post(named(url, "hooks.example"))) for _ in range(50)))

    assert names.asked == {"hooks.example": 1}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "name does not resolve"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "name cannot be resolved at present"),
    ],
)
async def test_a_name_that_does_not_resolve(sender: Sender, error: OSError, said: str) -> None:
    outcome = await sender(look_up=Names(hooks_example=[error])).send(post("http://hooks.example/"))

    assert failure(outcome) == said


def test_the_systems_resolver_gives_addresses_as_text() -> None:
    assert "127.0.0.1" in look_up("localhost")


PUBLIC = "192.0.9.9"  # public by the rules; nothing is ever sent there, as each test is refused before or dials nobody


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.5"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%lo"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["2620:fe::fe", PUBLIC, "::1"],
    ],
    ids=" ".join,
)
async def test_a_name_that_leads_to_a_private_address_is_refused(sender: Sender, addresses: list[str]) -> None:
    strict = AddressPolicy(allow_http=True, allowed_ports=frozenset(range(1, 65_536)))
    async with answering(response(200)) as (url, heads):
        outcome = await sender(strict, look_up=Names(hooks_example=[addresses])).send(post(named(url, "hooks.example")))

    assert refusal(outcome).startswith("refused to dial: the address of hooks.example is ")
    assert heads == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_refused_then(sender: Sender) -> None:
    """What was vetted is dialled, and what is dialled later is vetted later: a changed answer wins nothing."""
    names = Names(hooks_example=[["127.0.0.2"], ["127.0.0.1"]])
    only_one = AddressPolicy(allowed_networks=(ipaddress.ip_network("127.0.0.2/32"),))

    async def talk(reader: Reader, writer: Writer) -> None:
        reached.append(writer.get_extra_info("sockname")[0])
        await read_request(reader)
        writer.write(response(200, b"", "Connection: close"))
        writer.close()
        await writer.wait_closed()

    reached: list[str] = []
    server = await asyncio.start_server(talk, "0.0.0.0", 0)  # noqa: S104  # every loopback address reaches it
    async with server:
        url = f"http://hooks.example:{server.sockets[0].getsockname()[1]}/"
        same = sender(only_one, look_up=names)
        first, second = await same.send(post(url)), await same.send(post(url))

    assert answered(first).status == 200
    assert refusal(second) == "refused to dial: the address of hooks.example is loopback (127.0.0.0/8)"
    assert reached == ["127.0.0.2"]


@pytest.mark.parametrize(
    "written", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_a_private_address_in_the_url_is_refused(sender: Sender, written: str) -> None:
    strict = AddressPolicy(allow_http=True, allowed_ports=frozenset(range(1, 65_536)))
    async with answering(response(200)) as (url, heads):
        said = refusal(await sender(strict).send(post(named(url, written))))

    assert said.startswith("refused to dial: ")
    assert heads == []


async def test_plain_http_and_other_ports_are_judged_when_the_addresses_are_known(sender: Sender) -> None:
    same = sender(look_up=Names(hooks_example=[[PUBLIC]]))

    assert "plain http is not allowed" in refusal(await same.send(post("http://hooks.example/")))
    assert "port 22 is not allowed" in refusal(await same.send(post("https://hooks.example:22/")))


class _Careless(AddressPolicy):
    """Lets every URL pass, to see that the last guard, at the socket, stands by itself."""

    @override
    def check_url(self, url: str) -> Target:
        everything = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
        return AddressPolicy(allowed_networks=everything).check_url(url)


async def test_an_address_is_judged_at_the_socket_even_if_nobody_asked_before(sender: Sender) -> None:
    """No resolver is asked about an address that is written in a URL."""
    async with answering(response(200)) as (url, heads):
        outcome = await sender(_Careless()).send(post(url))

    assert refusal(outcome) == "refused to dial: the address 127.0.0.1 is loopback (127.0.0.0/8)"
    assert heads == []


# ---------------------------------------------------------------------- TLS
class Authority:
    """A certificate authority of our own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test Authority")])
        authority = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / "authority.pem"
        self.file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def context_for(self, name: str) -> ssl.SSLContext:
        """For a server of this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key, x509.SubjectAlternativeName([x509.DNSName(name)]))
        file = self._folder / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime(2020, 1, 1, tzinfo=UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=36_500))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def serving_tls(context: ssl.SSLContext) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers 200 over TLS; its URL, and the names that clients asked for."""
    asked: list[str] = []
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def talk(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(response(200, b"sealed"))
        await until_closed(reader)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://hooks.example:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


HERE = Names(hooks_example=[["127.0.0.1"]])


async def test_a_certificate_of_an_authority_we_were_told_to_trust_is_accepted(
    sender: Sender, authority: Authority
) -> None:
    """And the name in it is compared with that of the URL, not with the address."""
    async with serving_tls(authority.context_for("hooks.example")) as (url, asked):
        same = sender(look_up=HERE, ca_file=authority.file)
        outcome = answered(await same.send(post(url)))
        await same.aclose()

    assert outcome.body == b"sealed"
    assert asked == ["hooks.example"]


async def test_a_certificate_of_an_unknown_authority_is_refused(sender: Sender, authority: Authority) -> None:
    async with serving_tls(authority.context_for("hooks.example")) as (url, _):
        said = failure(await sender(look_up=HERE).send(post(url)))

    assert said.startswith("TLS: certificate verify failed: ")


async def test_a_certificate_for_another_name_is_refused(sender: Sender, authority: Authority) -> None:
    async with serving_tls(authority.context_for("other.example")) as (url, _):
        said = failure(await sender(look_up=HERE, ca_file=authority.file).send(post(url)))

    assert said.startswith("TLS: certificate verify failed: Hostname mismatch")


async def test_https_to_a_server_that_speaks_plain_http(sender: Sender) -> None:
    async def talk(_: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(talk) as url:
        said = failure(await sender().send(post(url.replace("http:", "https:"))))

    assert said.startswith("TLS: ")


async def test_https_to_a_server_that_hangs_up(sender: Sender) -> None:
    async with serving(_close_at_once) as url:
        said = failure(await sender().send(post(url.replace("http:", "https:"))))

    assert said in {"connection closed while connecting", "connection reset by peer"}


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("nonsense", "not a PEM file")])
async def test_a_file_of_authorities_that_cannot_be_used_stops_the_start(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(CannotStart, match=f"webhooks: the file of authorities .*authorities.pem.*{reason}"):
        HttpWebhookSender(LOOPBACK, ca_file=file)


# ---------------------------------------------------------------------- uvloop
@pytest.mark.parametrize(
    "promise",
    [
        test_a_post_arrives_byte_for_byte_with_the_callers_headers_and_hardly_any_other,
        test_a_body_of_megabytes_arrives_whole,
        test_only_the_beginning_of_a_huge_body_is_read_and_then_the_connection_is_closed,
        test_a_receiver_that_accepts_and_says_nothing_is_given_up,
        test_a_receiver_that_never_reads_cannot_keep_the_connection,
        test_a_tls_handshake_that_hangs_is_given_up,
        test_a_port_where_nobody_listens,
        test_a_kept_connection_that_is_closed_meanwhile_is_no_failure,
        test_a_new_connection_that_is_closed_is_not_tried_again,
        test_two_hundred_at_once_each_get_their_own_answer,
        test_cancelling_while_connecting_leaves_the_sender_as_good_as_new,
        test_cancelling_while_waiting_closes_the_connection,
        test_who_waits_for_the_same_name_is_not_cancelled_along,
        test_an_address_where_nobody_listens_is_passed_over_for_the_next,
        test_a_name_that_leads_elsewhere_the_second_time_is_refused_then,
        test_an_address_is_judged_at_the_socket_even_if_nobody_asked_before,
        test_https_to_a_server_that_speaks_plain_http,
        test_https_to_a_server_that_hangs_up,
        *(
            partial(test_a_connection_that_ends_without_an_answer_is_none, talk=talk)
            for talk in (_close_at_once, _close_after_the_request, _close_within_the_head, _reset_after_the_request)
        ),
    ],
)
def test_it_holds_on_the_event_loop_of_the_processes_too(promise: Callable[[Sender], Awaitable[None]]) -> None:
    """They run on uvloop, which differs where connections fail."""

    async def run() -> None:
        async with senders() as make:
            await promise(make)

    uvloop.run(run())
