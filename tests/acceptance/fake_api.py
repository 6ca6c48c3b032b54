"""An API that answers as told, on a port of its own, and keeps what it was asked."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

KEY = "tbk_aaaaaaaaaaaa_secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call, as it came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class FakeApi:
    """What it is told to answer, and what it was asked.

    Args:
        url: where it answers.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Response]] = field(default_factory=dict)

    def answer(self, method: str, path: str, *documents: object, status: int = 200) -> None:
        """Give these documents in turn, the last one for ever."""
        self.answers[method, path] = [
            Response(b"" if document is None else json.dumps(document), status, media_type="application/json")
            for document in documents
        ]

    def refuse(self, method: str, path: str, status: int, **fields: object) -> None:
        """Answer with a problem."""
        problem = json.dumps({"status": status, **fields})
        self.answers[method, path] = [Response(problem, status, media_type="application/problem+json")]

    def stream(self, path: str, *streams: Sequence[tuple[str, object]]) -> None:
        """Answer with server-sent events, another list of them each time."""
        self.answers["GET", path] = [
            Response(
                "".join(f"event: {name}\ndata: {json.dumps(document)}\n\n" for name, document in events),
                media_type="text/event-stream",
            )
            for events in streams
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        path = scope["raw_path"].decode()
        self.asked.append(
            Asked(
                method=request.method,
                path=path,
                query=parse_qsl(request.url.query),
                headers=dict(request.headers),
                body=json.loads(body) if body else None,
            )
        )
        await self._answer(request, path)(scope, receive, send)

    def _answer(self, request: Request, path: str) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Response(b'{"status": 401}', 401, media_type="application/problem+json")
        answers = self.answers.get((request.method, path))
        if answers is None:
            problem = json.dumps({"detail": f"there is no {path}"})
            return Response(problem, 404, media_type="application/problem+json")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def serving_app(app: ASGIApp) -> Iterator[str]:
    """An application on a free port, beside the test; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """One that runs beside the test."""
    api = FakeApi()
    with serving_app(api) as url:
        api.url = url
        yield api
