"""`tams-bridge listen`: a webhook receiver for people who write theirs; it verifies, shows, answers, and may pass on.

| what comes                         | what is answered                        | shown | passed on |
|------------------------------------|-----------------------------------------|-------|-----------|
| POST that fits the secret          | `answer_status`, or what the other said | yes   | yes       |
| POST, and there is no secret       | the same                                | yes   | yes       |
| POST that does not fit             | 401 and why                             | yes   | no        |
| POST to another path than `path`   | 404                                     | yes   | no        |
| POST longer than 16 MiB            | 413                                     | yes   | no        |
| OPTIONS, the CloudEvents handshake | 200 and consent                         | no    | no        |
| anything else                      | 404, 405, or 400 if it is no HTTP       | no    | no        |
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import httpx
import msgspec
import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from bridge.adapters.clock import SystemClock
from bridge.core.signatures import ID_HEADER, InvalidSecret, InvalidSignature, Verifier
from bridge.errors import CannotStart
from bridge.ports import Clock

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Longest body taken."""

REMEMBERED_IDS = 4_096
"""So many webhook-ids are kept to tell repeats."""

FORWARD_TIMEOUT_S = 30.0
"""Longest time for the exchange with whom POSTs are passed on to."""

_MAX_ANSWER_BYTES = 1024 * 1024
_TEXT_SHOWN = 255
_JOB_EVENTS = "tams.job."
_PASSED_ON = b"content-type"
_PASSED_ON_PREFIX = b"webhook-"
_PASSED_BACK = ("content-type", "content-encoding", "retry-after")
_POSSIBLE_STATUS = range(200, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One POST, for people to look at; texts in it are cut short and hold no control characters, the body is raw.

    Args:
        time: when it was complete.
        path: where it was posted to.
        webhook_id: the header of that name; empty without one.
        type: of the event; empty if the body tells none.
        request_id: of the job, if the body is a job event of the bridge.
        verified: whether it fits the secret; None without a secret, and for what was refused before it was looked at.
        problem: why it was refused, or could not be passed on.
        repeat: whether this webhook-id has been here before.
        body: as received; empty if it was too long.
        status: what was answered.
    """

    time: datetime
    path: str
    webhook_id: str
    type: str
    request_id: str
    verified: bool | None
    problem: str
    repeat: bool
    body: bytes
    status: int


@dataclass(frozen=True, slots=True)
class _Told:
    """What is answered, and the problem that is shown with it."""

    response: Response
    problem: str = ""


class SeenIds:
    """The webhook-ids of late, to tell repeats.

    Args:
        limit: how many are kept; the oldest are forgotten first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def seen(self, webhook_id: str) -> bool:
        """Whether this one was here before; now it was."""
        if webhook_id in self._ids:
            return True
        self._ids[webhook_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
        return False


class _Onward:
    """Passes POSTs on, with the headers that belong to them and no others."""

    def __init__(self, client: httpx.AsyncClient, url: httpx.URL) -> None:
        self._client = client
        self._url = url

    async def post(self, headers: Headers, body: bytes) -> _Told:
        """What the other side answers; 502 if it does not."""
        kept = [(name, value) for name, value in headers.raw if _belongs(name)]
        try:
            async with (
                asyncio.timeout(FORWARD_TIMEOUT_S),
                self._client.stream("POST", self._url, headers=kept, content=body) as answer,
            ):
                content = await _beginning(answer)
        except (httpx.HTTPError, TimeoutError) as error:
            return _refusal(502, f"not passed on: {str(error) or type(error).__name__}")
        if answer.status_code not in _POSSIBLE_STATUS:
            return _refusal(502, f"passed on, but the answer's status is {answer.status_code}")
        passed_back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return _Told(Response(content, answer.status_code, passed_back))


class _Receiver:
    """The ASGI application."""

    def __init__(
        self,
        *,
        verifier: Verifier | None,
        path: str | None,
        onward: _Onward | None,
        show: Callable[[Received], None],
        answer_status: int,
    ) -> None:
        self._verifier = verifier
        self._path = path
        self._onward = onward
        self._show = show
        self._answer_status = answer_status
        self._clock: Clock = SystemClock()
        self._ids = SeenIds(REMEMBERED_IDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return  # nobody is left to answer, and half a body is nothing to show
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._take(request)
        if self._is_elsewhere(request):
            return self._elsewhere().response
        if request.method == "OPTIONS":
            return _handshake(request.headers)
        return PlainTextResponse(
            "tams-bridge listen takes webhooks: send them by POST\n", 405, {"allow": "OPTIONS, POST"}
        )

    async def _take(self, request: Request) -> Response:
        body = await _read(request)
        now, headers, sent_id = self._clock.now(), request.headers, request.headers.get(ID_HEADER, "")
        verified, told = self._judge(request, body, now)
        repeat = told is None and bool(sent_id) and self._ids.seen(sent_id)
        if told is None:
            told = await self._accepted(headers, body or b"")
        kind, request_id = _read_event(body or b"")
        self._show(
            Received(
                time=now,
                path=_shown(request.scope["path"]),
                webhook_id=_shown(sent_id),
                type=_shown(kind),
                request_id=_shown(request_id),
                verified=verified,
                problem=told.problem,
                repeat=repeat,
                body=body or b"",
                status=told.response.status_code,
            )
        )
        return told.response

    def _judge(self, request: Request, body: bytes | None, now: datetime) -> tuple[bool | None, _Told | None]:
        """Whether a POST fits the secret, and what it is refused with, if it is."""
        if self._is_elsewhere(request):
            return None, self._elsewhere()
        if body is None:
            return None, _refusal(413, f"the body is longer than {MAX_BODY_BYTES // 1024 // 1024} MiB")
        if self._verifier is None:
            return None, None
        try:
            self._verifier.verify(request.headers, body, now=now)
        except InvalidSignature as error:
            return False, _refusal(401, str(error))
        return True, None

    async def _accepted(self, headers: Headers, body: bytes) -> _Told:
        if self._onward is None:
            return _Told(Response(status_code=self._answer_status))
        return await self._onward.post(headers, body)

    def _is_elsewhere(self, request: Request) -> bool:
        return self._path is not None and request.scope["path"] != self._path

    def _elsewhere(self) -> _Told:
        return _refusal(404, f"nothing listens here: webhooks are taken at {self._path}")


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: whoever started us ends us."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen(  # noqa: PLR0913  one argument for each option of the command
    *,
    secret: str | None,
    host: str,
    port: int,
    path: str | None,
    forward_to: str | None,
    show: Callable[[Received], None],
    ready: Callable[[str], None],
    answer_status: int = 204,
) -> None:
    """Receive webhooks until cancelled; no POST, however wrong, ends it.

    Args:
        secret: `whsec_…` or `whpk_…`, to verify with; None verifies nothing.
        host: address to listen on.
        port: port to listen on; 0 for any.
        path: the only path that is listened to; None for all.
        forward_to: where accepted POSTs are passed on to, to be answered there; None answers them here.
        show: told of each POST, before it is answered.
        ready: called once, with the URL to post to.
        answer_status: what accepted POSTs are answered with here.

    Raises:
        CannotStart: an argument is wrong, or the address is taken.
    """
    verifier = None if secret is None else _verifier(secret)
    listener = _listener(host, port)
    with listener:
        async with _onward(forward_to) as onward:
            path = None if path is None else f"/{path.lstrip('/')}"
            receiver = _Receiver(verifier=verifier, path=path, onward=onward, show=show, answer_status=answer_status)
            await _serve(receiver, listener, lambda: ready(_url(host, listener) + (path or "/")))


async def _serve(receiver: _Receiver, listener: socket.socket, ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        receiver,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = _QuietServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        ready()  # whoever connects before the server is up waits in the listener's queue
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


def _verifier(secret: str) -> Verifier:
    try:
        return Verifier([secret])
    except InvalidSecret as error:
        message = f"listen: --secret: {error}"
        raise CannotStart(message) from None


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        message = f"listen: cannot listen on {host}:{port}: {error.strerror or error} (--port 0 takes a free one)"
        raise CannotStart(message) from None


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


@asynccontextmanager
async def _onward(forward_to: str | None) -> AsyncIterator[_Onward | None]:
    if forward_to is None:
        yield None
    else:
        url, headers = _forward_url(forward_to), {"user-agent": "tams-bridge listen", "accept-encoding": "identity"}
        # No time-outs of httpx: one deadline spans the whole exchange.
        async with httpx.AsyncClient(headers=headers, trust_env=False, follow_redirects=False, timeout=None) as client:  # noqa: S113
            yield _Onward(client, url)


def _forward_url(forward_to: str) -> httpx.URL:
    with suppress(httpx.InvalidURL):
        url = httpx.URL(forward_to)
        if url.scheme in {"http", "https"} and url.host:
            return url
    message = "listen: --forward-to takes a URL such as http://127.0.0.1:3000/hook"
    raise CannotStart(message)


async def _read(request: Request) -> bytes | None:
    """The body; None if it is too long."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


async def _beginning(answer: httpx.Response) -> bytes:
    """An answer's body, not decoded, as far as it is passed back."""
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) >= _MAX_ANSWER_BYTES:
            break
    return bytes(content[:_MAX_ANSWER_BYTES])


def _belongs(name: bytes) -> bool:
    return name == _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)


def _refusal(status: int, problem: str) -> _Told:
    return _Told(PlainTextResponse(problem + "\n", status), problem)


def _handshake(headers: Headers) -> Response:
    """Consent to whoever asks, at any rate: only a developer's machine is at stake.

    Source: CloudEvents "HTTP 1.1 Web Hooks", "Abuse protection".
    """
    granted = {"allow": "OPTIONS, POST"}
    origin = headers.get("webhook-request-origin")
    if origin:
        granted["webhook-allowed-origin"] = origin
        granted["webhook-allowed-rate"] = headers.get("webhook-request-rate") or "*"
    return Response(status_code=200, headers=granted)


class _Event(msgspec.Struct):
    type: str = ""
    subject: str = ""


def _read_event(body: bytes) -> tuple[str, str]:
    """Event type and request id, as far as there are any; the subject of a job event is its request id."""
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    return event.type, event.subject if event.type.startswith(_JOB_EVENTS) else ""


def _shown(text: str) -> str:
    """Strangers choose these texts: what could move a terminal's cursor must not reach it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_TEXT_SHOWN])
