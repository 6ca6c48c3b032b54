"""A world of the API's own: topics, receivers and names in memory, and a client that speaks to it.

`FakeTopic` keeps the contract of `RegistryLog`, `Orders` and `Requests`: what is written is in the view on return.
"""

import asyncio
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

import httpx
import msgspec
from starlette.types import ASGIApp, Message

from bridge.api.app import build_app
from bridge.api.hub import EventHub
from bridge.api.ports import ApiLimits, Services
from bridge.api.views import DeliveriesView, JobsView
from bridge.core.addresses import Address, AddressPolicy
from bridge.core.keyring import Keyring, make_key
from bridge.core.registry import Registry
from bridge.errors import CannotUnseal, NotConfirmed
from bridge.webhook_messages import ApiKey, DispatchRecord, Scope
from bridge.webhook_ports import NoResponse, Post, Response
from tests.roles.fakes import HandClock, settle

PUBLIC = "93.184.215.14"
HOOK = "https://acme.example/hook"


@dataclass(frozen=True, slots=True)
class Written:
    """A record of a topic, as Kafka clients give it."""

    key: bytes | None
    value: bytes | None
    partition: int = 0
    offset: int = 0


class FakeTopic:
    """Implements `RegistryLog`, `Orders` and `Requests`.

    `errors` are raised by the next writes, one each; a write raises before it takes effect.
    """

    def __init__(self, view: Callable[[bytes, bytes | None], object] = lambda _key, _value: None) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.orders: list[DispatchRecord] = []
        self.headers: list[Mapping[str, str]] = []
        self.partitions: list[int | None] = []
        self.errors: deque[Exception] = deque()
        self._view = view

    async def write(self, key: bytes, value: bytes | None) -> None:
        if self.errors:
            raise self.errors.popleft()
        self.records.append((key, value))
        await settle()
        self._view(key, value)

    async def place(self, order: DispatchRecord) -> None:
        await self.write(order.endpoint_id.encode(), msgspec.json.encode(order))
        self.orders.append(order)

    async def publish(
        self, request_id: str, value: bytes, headers: Mapping[str, str], *, partition: int | None = None
    ) -> None:
        await self.write(request_id.encode(), value)
        self.headers.append(headers)
        self.partitions.append(partition)


class FakeBox:
    """Implements `SecretBox`: what is sealed for one owner opens for no other."""

    def seal(self, plain: str, *, owner: str) -> str:
        return f"{owner}|{b64encode(plain.encode()).decode()}"

    def unseal(self, sealed: str, *, owner: str) -> str:
        sealed_for, _, rest = sealed.partition("|")
        if sealed_for != owner:
            raise CannotUnseal(owner)
        return b64decode(rest).decode()


@dataclass(slots=True)
class FakeReceivers:
    """Implements `WebhookSender` and `Resolver`."""

    answer: Response | NoResponse = field(default_factory=lambda: NoResponse(error="nobody there"))
    posts: list[Post] = field(default_factory=list)
    names: dict[str, Collection[Address]] = field(default_factory=lambda: {"acme.example": [ip_address(PUBLIC)]})

    async def send(self, post: Post) -> Response | NoResponse:
        self.posts.append(post)
        return self.answer

    async def addresses(self, name: str) -> Collection[Address]:
        return self.names.get(name, [])


class CountedChance:
    """Chance that is another at every draw, and the same in every run."""

    def __init__(self) -> None:
        self._drawn = 0

    def __call__(self, length: int) -> bytes:
        self._drawn += 1
        return (sha256(str(self._drawn).encode()).digest() * 2)[:length]


@dataclass(slots=True, kw_only=True)
class World:
    """An API, and all it knows of the world."""

    clock: HandClock = field(default_factory=HandClock)
    registry: Registry = field(default_factory=Registry)
    keyring: Keyring = field(default_factory=Keyring)
    jobs: JobsView = field(default_factory=lambda: JobsView(limit=1_000))
    deliveries: DeliveriesView = field(default_factory=lambda: DeliveriesView(history=1_000))
    hub: EventHub = field(default_factory=EventHub)
    orders: FakeTopic = field(default_factory=FakeTopic)
    requests: FakeTopic = field(default_factory=FakeTopic)
    receivers: FakeReceivers = field(default_factory=FakeReceivers)
    limits: ApiLimits = field(default_factory=ApiLimits)
    has_box: bool = True
    is_ready: bool = True
    registry_log: FakeTopic = field(init=False)
    status_log: FakeTopic = field(init=False)
    key_log: FakeTopic = field(init=False)
    chance: CountedChance = field(default_factory=CountedChance)
    _app: ASGIApp | None = None

    def __post_init__(self) -> None:
        self.registry_log = FakeTopic(self.registry.apply)
        self.status_log = FakeTopic(self.registry.apply)
        self.key_log = FakeTopic(self.keyring.apply)

    @property
    def app(self) -> Any:
        """The API; made once, with what the world is then."""
        if self._app is None:
            self._app = build_app(self.services())
        return self._app

    def services(self) -> Services:
        return Services(
            registry=self.registry,
            keyring=self.keyring,
            jobs=self.jobs,
            deliveries=self.deliveries,
            hub=self.hub,
            registry_log=self.registry_log,
            status_log=self.status_log,
            key_log=self.key_log,
            orders=self.orders,
            requests=self.requests,
            secret_box=FakeBox() if self.has_box else None,
            sender=self.receivers,
            resolver=self.receivers,
            policy=AddressPolicy(),
            clock=self.clock,
            random_bytes=self.chance,
            is_ready=lambda: self.is_ready,
            limits=self.limits,
        )

    def key(self, *scopes: Scope, tenant: str | None = None) -> str:
        """A key with these scopes, `admin` if none are given, that is in force."""
        made = make_key(self.chance(40))
        record = ApiKey(
            id=made.id,
            name="test",
            secret_hash=made.secret_hash,
            scopes=scopes or (Scope.ADMIN,),
            tenant=tenant,
            created=self.clock.now(),
        )
        self.keyring.apply(record.id.encode(), msgspec.json.encode(record))
        return made.text

    def client(self, *scopes: Scope, tenant: str | None = None) -> httpx.AsyncClient:
        """One who holds such a key."""
        return self.client_with({"authorization": f"Bearer {self.key(*scopes, tenant=tenant)}"})

    def client_with(self, headers: Mapping[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)


class Stream:
    """A response that does not end by itself, as a client sees it; nothing is read before `read`.

    Args:
        app: the API.
        path: what is asked for, with its query.
        key: who asks.
    """

    def __init__(self, app: ASGIApp, path: str, key: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._app = app
        self._path, _, self._query = path.partition("?")
        self._key = key
        self._sent: deque[bytes] = deque()
        self._may_send = asyncio.Event()
        self._gone = asyncio.Event()
        self.ended = asyncio.Event()

    async def read(self) -> str:
        """All that has come so far; what comes from now on is taken without delay."""
        self._may_send.set()
        await settle()
        text = b"".join(self._sent).decode()
        self._sent.clear()
        return text

    async def run(self) -> None:
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            await self._may_send.wait()
            self._sent.append(message["body"])
            if not message.get("more_body", False):
                self.ended.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": self._query.encode(),
            "root_path": "",
            "headers": [(b"authorization", f"Bearer {self._key}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self._app(scope, receive, send)

    def leave(self) -> None:
        """The client goes away."""
        self._gone.set()


@asynccontextmanager
async def streaming(world: World, path: str, *, key: str | None = None, reading: bool = True) -> AsyncIterator[Stream]:
    """Follow a stream; the client is gone on exit."""
    stream = Stream(world.app, path, key or world.key())
    running = asyncio.create_task(stream.run())
    if reading:
        stream._may_send.set()
    await settle()
    try:
        yield stream
    finally:
        stream.leave()
        stream._may_send.set()
        await settle()
        assert running.done(), "the API holds on to a client that is gone"
        await running


def unconfirmed() -> NotConfirmed:
    return NotConfirmed("kafka does not answer")
