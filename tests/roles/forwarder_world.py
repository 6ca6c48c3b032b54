"""A forwarder in a world in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256

import msgspec

from bridge.core.dispatch import DispatchPolicy
from bridge.core.registry import Registry, endpoint_key, status_key
from bridge.core.signatures import new_secret
from bridge.forwarder import Forwarder, ForwarderPlan
from bridge.messages import EventType
from bridge.ownership import OwnershipPlan
from bridge.poster import Poster
from bridge.webhook_messages import (
    DispatchRecord,
    Endpoint,
    EndpointStatus,
    InlineWebhook,
    SealedSecret,
    SignatureScheme,
    TenantSecrets,
)
from bridge.webhook_ports import ForwarderSurroundings
from tests.core.webhook_examples import endpoint, order, put, with_policy
from tests.roles.fakes import START, FakeFeed, FixedChance, HandClock, settle
from tests.roles.forwarder_fakes import FakeDispatchLedgers, FakeHistory, FakeSecretBox, FakeSender, ListenedDispatch

COMMIT_S = 0.1


def secret_of(owner: str) -> str:
    """The signing secret of an endpoint, or of a tenant."""
    return new_secret(SignatureScheme.V1, sha256(owner.encode()).digest())


def url_of(endpoint_id: str) -> str:
    """Where a registered endpoint's events are posted."""
    return endpoint(endpoint_id).url


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a test wants to be different."""

    partitions: int = 1
    concurrency: int = 100
    read_ahead: int = 1000
    commit_interval_s: float = COMMIT_S
    policy: DispatchPolicy = field(default_factory=lambda: with_policy(max_pending=1000))
    ledgers: FakeDispatchLedgers = field(default_factory=FakeDispatchLedgers)
    feed: FakeFeed = field(default_factory=FakeFeed)
    history: FakeHistory = field(default_factory=FakeHistory)
    registry: Registry = field(default_factory=Registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderWorld:
    """A forwarder, and all it knows of the world."""

    clock: HandClock
    registry: Registry
    ledgers: FakeDispatchLedgers
    feed: FakeFeed
    history: FakeHistory
    sender: FakeSender
    box: FakeSecretBox
    told: ListenedDispatch
    forwarder: Forwarder
    working: asyncio.Task[None]

    async def register(self, *endpoint_ids: str, **fields: object) -> None:
        """Write endpoints to the registry, as the API would, and let the forwarder hear of it."""
        for endpoint_id in endpoint_ids:
            sealed = SealedSecret(sealed=self.box.seal(secret_of(endpoint_id), owner=endpoint_id), created=START)
            self.put(endpoint(endpoint_id, **{"secrets": (sealed,), **fields}))
        await settle()

    def put(self, record: Endpoint | EndpointStatus | TenantSecrets) -> None:
        """Write to the registry, and let the forwarder hear of it."""
        put(self.registry, record)
        match record:
            case Endpoint():
                self.forwarder.endpoint_changed(record.id)
            case EndpointStatus():
                self.forwarder.endpoint_changed(record.endpoint_id)
            case TenantSecrets():
                self.forwarder.tenant_changed()

    async def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint, as the API would."""
        for key in (endpoint_key(endpoint_id), status_key(endpoint_id)):
            self.registry.apply(key, None)
            self.forwarder.endpoint_changed(endpoint_id)
        await settle()

    def place(self, record: DispatchRecord, *, partition: int = 0) -> None:
        """Write to the dispatch topic."""
        self.feed.publish(msgspec.json.encode(record), key=record.endpoint_id, partition=partition)

    async def order(
        self,
        endpoint_id: str = "ep_a",
        job: str = "a",
        sequence: int = 1,
        *,
        partition: int = 0,
        type_: EventType = EventType.SUCCESS,
        inline: InlineWebhook | None = None,
    ) -> None:
        """Order an event, and let the forwarder do what it can without time passing."""
        self.place(order(endpoint_id, job, sequence, type_=type_, inline=inline), partition=partition)
        await settle()

    async def commit(self) -> None:
        """Let the time pass that an outcome may wait to be written."""
        await self.clock.advance(COMMIT_S)

    async def stop(self) -> None:
        """Stop the forwarder and let it end, without time passing."""
        self.forwarder.stop()
        await settle()


@asynccontextmanager
async def forwarding(options: Options) -> AsyncIterator[ForwarderWorld]:
    """A forwarder at work with these options."""
    clock, told, box = HandClock(), ListenedDispatch(), FakeSecretBox()
    sender = FakeSender(clock)
    forwarder = Forwarder(
        ledgers=options.ledgers,
        feed=options.feed,
        history=options.history,
        poster=Poster(sender, secret_box=box, clock=clock, source="/tams-bridge", user_agent="tams-bridge"),
        registry=options.registry,
        plan=ForwarderPlan(
            policy=options.policy,
            concurrency=options.concurrency,
            read_ahead=options.read_ahead,
            commit_interval=timedelta(seconds=options.commit_interval_s),
            ownership=OwnershipPlan(closing_time=timedelta(seconds=6), fenced_pause=timedelta(seconds=15)),
        ),
        surroundings=ForwarderSurroundings(clock, FixedChance(), told),
    )
    options.feed.reader = forwarder.ownership
    working = asyncio.create_task(forwarder.run())
    await settle()
    forwarder.ownership.assigned(range(options.partitions))
    await settle()
    try:
        yield ForwarderWorld(
            clock=clock,
            registry=options.registry,
            ledgers=options.ledgers,
            feed=options.feed,
            history=options.history,
            sender=sender,
            box=box,
            told=told,
            forwarder=forwarder,
            working=working,
        )
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
