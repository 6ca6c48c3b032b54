"""What the API needs of the world, and what it is made of."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from bridge.api.hub import EventHub
from bridge.api.views import DeliveriesView, JobsView
from bridge.core.addresses import Address, AddressPolicy
from bridge.core.keyring import Keyring
from bridge.core.registry import Registry
from bridge.ports import Clock
from bridge.webhook_messages import DispatchRecord
from bridge.webhook_ports import SecretBox, WebhookSender


class RegistryLog(Protocol):
    """One of the two registry topics, to write."""

    async def write(self, key: bytes, value: bytes | None) -> None:
        """Write one record, None for a deletion; returns once the brokers have it and our own view holds it.

        Raises:
            NotConfirmed: that took too long, or failed; it may have been written all the same.
        """


class Orders(Protocol):
    """The topic `<prefix>.dispatch`, to write."""

    async def place(self, order: DispatchRecord) -> None:
        """Ask the forwarder that serves this endpoint for something; returns once the brokers have it.

        Raises:
            NotConfirmed: that took too long, or failed; it may have been written all the same.
        """


class Requests(Protocol):
    """The topic `<prefix>.requests`, to write."""

    async def publish(
        self, request_id: str, value: bytes, headers: Mapping[str, str], *, partition: int | None = None
    ) -> None:
        """Publish a request under its id; returns once the brokers have it.

        Args:
            request_id: the key.
            value, headers: of the record.
            partition: where a job of this id is held already, which is not where our client would put it if another
                kind of client chose; None to let the key choose.

        Raises:
            NotConfirmed: that took too long, or failed; it may have been written all the same.
        """


class Resolver(Protocol):
    """Names to addresses."""

    async def addresses(self, name: str) -> Collection[Address]:
        """All addresses of a name; none if it does not resolve, or not in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """What the API takes and gives at the most.

    Args:
        body_bytes: longest body of a request.
        request_bytes: longest job request that workers take.
        page: most items of a page.
        streams: most server-sent event streams at once.
        keep_alive_s: how often a silent stream says that it lives.
        origin: who we say we are when a receiver is asked for its consent (CloudEvents, "Web Hooks").
    """

    body_bytes: int = 2 * 1024 * 1024
    request_bytes: int = 2 * 1024 * 1024
    page: int = 200
    streams: int = 500
    keep_alive_s: float = 15.0
    origin: str = "tams-bridge"


class Locks:
    """Keeps two changes of the same thing in this process apart."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """The lock of a thing, the same for as long as anybody holds it or waits for it."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the API is made of.

    Args:
        registry, keyring, jobs, deliveries: views, fed by topics.
        hub: hands events to those who listen.
        registry_log, status_log, key_log: where endpoints, their statuses and API keys are written.
        orders, requests: where forwarders and workers are asked for something.
        secret_box: None while no encryption key is configured.
        sender: asks receivers for their consent.
        resolver, policy: where endpoints may lead.
        clock: time.
        random_bytes: chance that nobody can guess.
        is_ready: whether the registry has been read up to what was there at the start; before that nobody is known, and
            a creation could be repeated.
        limits: what is taken and given at the most.
        locks: keep changes of one thing apart.
    """

    registry: Registry
    keyring: Keyring
    jobs: JobsView
    deliveries: DeliveriesView
    hub: EventHub
    registry_log: RegistryLog
    status_log: RegistryLog
    key_log: RegistryLog
    orders: Orders
    requests: Requests
    secret_box: SecretBox | None
    sender: WebhookSender
    resolver: Resolver
    policy: AddressPolicy
    clock: Clock
    random_bytes: Callable[[int], bytes]
    is_ready: Callable[[], bool] = lambda: True
    limits: ApiLimits = ApiLimits()
    locks: Locks = field(default_factory=Locks)
