"""HTTP/1.1 over one TCP connection: requests in, answers out in the same order, and every way to spoil that.

Not an ASGI server, because a fault may have to cut the connection or drip an answer, and because an ordinary answer,
which is at hand without waiting, is written without starting a task.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools
from typing_extensions import override

from bridge.emulator.clock import Clock
from bridge.emulator.images import Picture, draw
from bridge.emulator.wire import Answer, Refusal, Request, RpcCode, rpc_status

DRIPS = 20

logger = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(
        self, answer: Callable[[Request], Answer], body_limit: Callable[[], int], clock: Clock, peers: set["Connection"]
    ) -> None:
        """Answer requests by that function if their bodies are within the limit; be among the peers while open."""
        self._answer = answer
        self._body_limit = body_limit
        self._clock = clock
        self._peers = peers
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._waiting: deque[Request] = deque()
        self._slow_answer: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection up."""
        self._transport = cast("asyncio.Transport", transport)
        self._peers.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and what was still to be answered."""
        self._peers.discard(self)
        self._waiting.clear()
        if self._slow_answer:
            self._slow_answer.cancel()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        """Read what came; whatever is not HTTP is answered 400."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()
        except httptools.HttpParserError as error:
            refusal = Refusal(400, rpc_status(RpcCode.INVALID_ARGUMENT, f"bad request: {error}"))
            self._write(refusal.answer, cast("bytes", refusal.answer.body), Request(keep_alive=False))

    def on_message_begin(self) -> None:
        """Begin a request (called by the parser, as are the next five)."""
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        """Read a part of the target."""
        self._request.target = url if self._request.target == b"/" else self._request.target + url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note what the parser knows, and tell a client that asks to go on."""
        self._request.method = self._parser.get_method().decode()
        self._request.keep_alive = self._parser.should_keep_alive()
        if self._request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Read a part of the body; of one that is too long nothing is kept."""
        request = self._request
        request.too_long = request.too_long or len(request.body) + len(body) > self._body_limit()
        request.body = bytearray() if request.too_long else request.body + body

    def on_message_complete(self) -> None:
        """Answer, unless an earlier request is still being answered."""
        self._waiting.append(self._request)
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        while self._waiting and not self._slow_answer and not self._transport.is_closing():
            request = self._waiting.popleft()
            answer = self._answer_or_fail(request)
            if answer.delay_s or answer.drip_s or isinstance(answer.body, Picture):
                self._slow_answer = asyncio.get_running_loop().create_task(self._write_slowly(answer, request))
            elif answer.cut:
                self.abort()
            else:
                self._write(answer, answer.body, request)

    def _answer_or_fail(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except Exception:
            logger.exception("the emulator failed to answer %s %s", request.method, request.path)
            return Refusal(500, rpc_status(RpcCode.INTERNAL, "bug in the emulator")).answer

    async def _write_slowly(self, answer: Answer, request: Request) -> None:
        await self._clock.sleep(answer.delay_s)
        body = answer.body
        if isinstance(body, Picture):
            body = await asyncio.to_thread(draw, body)
        if answer.cut:
            self.abort()
        elif answer.drip_s and request.method != "HEAD":
            await self._drip(answer, body, request)
        else:
            self._write(answer, body, request)
        self._slow_answer = None
        self._answer_waiting()

    async def _drip(self, answer: Answer, body: bytes, request: Request) -> None:
        self._transport.write(_head(answer, len(body), request))
        size = max(len(body) // DRIPS, 1)
        for start in range(0, len(body), size):
            await self._clock.sleep(answer.drip_s / DRIPS)
            self._transport.write(body[start : start + size])
        self._close_unless_kept(request)

    def _write(self, answer: Answer, body: bytes, request: Request) -> None:
        self._transport.write(_head(answer, len(body), request) + (b"" if request.method == "HEAD" else body))
        self._close_unless_kept(request)

    def _close_unless_kept(self, request: Request) -> None:
        if not request.keep_alive:
            self._transport.close()


def _head(answer: Answer, length: int, request: Request) -> bytes:
    lines = [
        STATUS_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} ",
        f"content-type: {answer.content_type}",
        f"content-length: {length}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    if not request.keep_alive:
        lines.append("connection: close")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
