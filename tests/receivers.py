"""Receivers of webhooks on the loopback address: real HTTP, answers as told, every request written down.

async with receiving() as receiver:
    receiver.secrets["/hook"] = "whsec_…"           # verified by the package `standardwebhooks`; optional
    receiver.answers["/hook"].append(reply(500))    # once; afterwards 204, or what `always` says
    receiver.always["/slow"] = HANG
    …
    await receiver.until(lambda: len(receiver.at("/hook")) == 2)
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import standardwebhooks

from bridge.adapters.clock import SystemClock
from tests.adapters.web import read_request, response, serving

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, as it travels."""

    data: bytes


HANG: Literal["hang"] = "hang"
"""Take the request and never answer."""

CUT: Literal["cut"] = "cut"
"""Take the request and close the connection."""

DRIP: Literal["drip"] = "drip"
"""Answer with a body that never ends, a byte a second."""

Behaviour = Reply | Literal["hang", "cut", "drip"]


def reply(status: int, body: bytes = b"", *headers: str) -> Reply:
    """An answer; headers are written as `name: value`."""
    return Reply(response(status, body, *headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A request as it arrived.

    Args:
        method, target: of its first line; the target is path and query.
        headers: names in lower case.
        body: its bytes.
        at: when, on the monotonic clock.
        problem: why its signature cannot be trusted; empty if it can, or nobody asked.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float
    problem: str = ""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent it carries."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def event_id(self) -> str:
        """The id of that."""
        return str(self.event["id"])

    @property
    def webhook_id(self) -> str:
        """By which a receiver knows a repeat."""
        return self.headers["webhook-id"]


@dataclass(slots=True)
class Receiver:
    """A server with any number of paths, each a receiver of its own.

    Args:
        url: without path.
        got: every request, in the order of arrival.
        secrets: by path, what requests must be signed with; those that are not are answered 401.
        answers: by path, for the next requests, one each.
        always: by path, for all others.
    """

    url: str = ""
    got: list[Got] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    answers: defaultdict[str, deque[Behaviour]] = field(default_factory=lambda: defaultdict(deque))
    always: dict[str, Behaviour] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def at(self, path: str) -> list[Got]:
        """The requests to one path."""
        return [got for got in self.got if got.path == path]

    def events(self, path: str) -> list[str]:
        """The ids of the events that arrived at one path."""
        return [got.event_id for got in self.at(path)]

    async def until(self, enough: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
        """Wait until it is so; looked at with every request."""
        try:
            async with asyncio.timeout(seconds):
                while not enough():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            so_far = [(got.method, got.target, got.body[:100], got.problem) for got in self.got]
            message = f"not within {seconds} s; so far {so_far}"
            raise AssertionError(message) from None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while True:
            try:
                head, body = await read_request(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            got = self._take(head, body)
            if not await self._answer(got, writer):
                return

    def _take(self, head: str, body: bytes) -> Got:
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        problem = self._problem(target.partition("?")[0], headers, body)
        at = SystemClock().monotonic()
        got = Got(method=method, target=target, headers=headers, body=body, at=at, problem=problem)
        self.got.append(got)
        self._arrived.set()
        return got

    def _problem(self, path: str, headers: dict[str, str], body: bytes) -> str:
        if path not in self.secrets:
            return ""
        try:
            standardwebhooks.Webhook(self.secrets[path]).verify(body, headers)
        except standardwebhooks.WebhookVerificationError as error:
            return str(error) or "not signed"
        return ""

    async def _answer(self, got: Got, writer: asyncio.StreamWriter) -> bool:
        """True if the connection goes on."""
        scripted = self.answers[got.path]
        usual = reply(401) if got.problem else self.always.get(got.path, reply(204))
        behaviour = scripted.popleft() if scripted else usual
        match behaviour:
            case Reply(data):
                writer.write(data)
                await writer.drain()
            case "hang":
                await asyncio.Event().wait()
            case "drip":
                await _drip(writer)
            case "cut":
                writer.transport.abort()
        return isinstance(behaviour, Reply)


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await SystemClock().wait(asyncio.Event(), 1.0)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that answers 204 to everything until told otherwise."""
    receiver = Receiver()
    async with serving(receiver.talk) as url:
        receiver.url = url
        yield receiver
