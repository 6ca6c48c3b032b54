"""The demo's subscriber: a webhook receiver that lets a package of somebody else verify every POST."""

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from bridge.errors import CannotStart

_OK, _NO_CONTENT, _CREATED, _UNAUTHORIZED = 200, 204, 201, 401


class _Event(msgspec.Struct):
    id: str
    subject: str


class _Registered(msgspec.Struct):
    secret: str


class DemoReceiver:
    """Counts the POSTs that came, by request and event; those whose signature does not fit are trouble."""

    def __init__(self) -> None:
        self.posts: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.forged = 0
        self._secret = ""
        self._arrived = asyncio.Event()

    async def register(self, *, api_url: str, api_key: str, url: str) -> None:
        """Ask the API for every event of the demo's requests.

        Raises:
            CannotStart: the API refuses.
        """
        endpoint = {"url": url, "labels": {"demo": "yes"}, "description": "the demo itself"}
        async with httpx.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {api_key}"}) as http:
            answer = await http.post(f"{api_url}/v1/endpoints", json=endpoint)
        if answer.status_code != _CREATED:
            message = f"api: the webhook cannot be registered: HTTP {answer.status_code}: {answer.text}"
            raise CannotStart(message)
        self._secret = msgspec.json.decode(answer.content, type=_Registered).secret

    async def until(self, expected: dict[str, int], *, seconds: float) -> None:
        """Return once so many different events have come of each request, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while any(len(self.posts[request_id]) < count for request_id, count in expected.items()):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return

    async def receive(self, request: Request) -> Response:
        """Take a POST."""
        from standardwebhooks import Webhook, WebhookVerificationError  # noqa: PLC0415  needs the extra `demo`

        body = await request.body()
        try:
            Webhook(self._secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return Response(status_code=_UNAUTHORIZED)
        event = msgspec.json.decode(body, type=_Event)
        counts = self.posts[event.subject]
        counts[event.id] = counts.get(event.id, 0) + 1
        self._arrived.set()
        return Response(status_code=_NO_CONTENT)


@asynccontextmanager
async def demo_receiver() -> AsyncIterator[tuple[DemoReceiver, str]]:
    """A receiver that listens on a free port of this machine, and its URL."""
    receiver = DemoReceiver()
    app = Starlette(routes=[Route("/webhook", receiver.receive, methods=["POST"])])
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        await server.listening.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield receiver, f"http://127.0.0.1:{port}/webhook"
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, which tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup()
        self.listening.set()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
