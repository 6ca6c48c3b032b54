"""What the forwarder and the API need of the world beyond `bridge.ports`."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Protocol

from bridge.ports import Clock, DeadLetter
from bridge.webhook_messages import Attempt, DeadDelivery, Delivery, EndpointStatus, Notice, Replay, ReplayOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One HTTP request to a receiver.

    Args:
        url: absolute, checked by `bridge.core.addresses` when it was registered; checked again when it is dialled.
        headers: names in lower case; complete but for those the connection needs.
        body: the exact bytes that were signed.
        timeout: longest time for the whole exchange, from resolving the name to the last byte read.
        method: `POST`; `OPTIONS` for the CloudEvents handshake.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: timedelta
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A receiver's answer.

    Args:
        status: HTTP status.
        headers: names in lower case; of repeated ones the last.
        body: its first 16 KiB at the most.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResponse:
    """An exchange without a complete head of an answer.

    Args:
        error: what went wrong, in a few words for people; holds no secret.
        blocked: the guard against private addresses refused to dial; nothing was sent.
    """

    error: str
    blocked: bool = False


class WebhookSender(Protocol):
    """Who sends HTTP requests to receivers; may be called many times at once."""

    async def send(self, post: Post) -> Response | NoResponse:
        """One exchange; follows no redirect, and never raises for what the other side, or the network, did."""


class SecretBox(Protocol):
    """Encrypts what the registry keeps secret."""

    def seal(self, plain: str, *, owner: str) -> str:
        """Encrypt with the newest key; can only be opened for the same owner (an endpoint id, or a tenant)."""

    def unseal(self, sealed: str, *, owner: str) -> str:
        """Decrypt with any key in force.

        Raises:
            CannotUnseal: no key fits, or it was sealed for another owner.
        """


@dataclass(slots=True)
class DispatchChanges:
    """What one step of a dispatcher wants written, in one transaction: all of it or nothing.

    Args:
        deliveries: state by delivery id; None once ended.
        events: values of events to keep (bytes) or to drop (None), by delivery id.
        attempts: what was tried, in order.
        dead: deliveries given up.
        notices: what endpoints' owners should know.
        statuses: how endpoints do, by endpoint id.
        replays: by (endpoint id, replay id); None once forgotten.
        dead_letters: records of the dispatch topic that cannot be read.
        position: offset of the next dispatch record to read, if it moved.
    """

    deliveries: dict[str, Delivery | None] = field(default_factory=dict)
    events: dict[str, bytes | None] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    dead: list[DeadDelivery] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    statuses: dict[str, EndpointStatus] = field(default_factory=dict)
    replays: dict[tuple[str, str], Replay | None] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    position: int | None = None


class DispatchLedger(Protocol):
    """The deliveries of one partition, held by the one owner that may write them."""

    async def commit(self, changes: DispatchChanges) -> None:
        """Write everything in one transaction.

        Raises:
            OwnershipLost, LedgerUnavailable: as `bridge.ports.Ledger.commit`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDispatch:
    """A deliveries partition, fenced and replayed.

    Args:
        ledger: to write it.
        deliveries: those that have not ended.
        events: the events' values, by delivery id.
        replays: those that are remembered.
        position: offset of the next dispatch record to read; None if none was ever read.
    """

    ledger: DispatchLedger
    deliveries: Collection[Delivery]
    events: Mapping[str, bytes]
    replays: Collection[Replay]
    position: int | None


class DispatchLedgers(Protocol):
    """All partitions of the deliveries."""

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenDispatch]:
        """Take over a partition: fence its former owner, then replay it; raises as `bridge.ports.Ledgers.open`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvents:
    """Some events of the past.

    Args:
        values: the events' values, as on the result topics.
        positions: where to go on after them.
    """

    values: list[bytes]
    positions: Mapping[str, int]


class EventHistory(Protocol):
    """The events that were published, for replays."""

    async def bounds(self, order: ReplayOrder) -> tuple[dict[str, int], dict[str, int]]:
        """Where a replay begins, and before which offsets it ends, by `<topic>-<partition>`."""

    def read(self, positions: Mapping[str, int], ends: Mapping[str, int]) -> AsyncGenerator[PastEvents, None]:
        """Read on from these positions up to those ends; may be left at any time."""


class DispatchTelemetry(Protocol):
    """Who is told what a forwarder does, for people: one wide event an attempt, and the metrics."""

    def committed(self, changes: DispatchChanges, seconds: float) -> None:
        """A transaction was committed: its attempts, dead deliveries and notices have happened."""

    def ownership(self, partition: int, state: str, detail: str) -> None:
        """A partition was `opened`, `closed`, `lost` to another process, or is `unavailable`."""

    def trouble(self, doing: str, detail: str) -> None:
        """Something failed that is tried again."""


@dataclass(frozen=True, slots=True)
class ForwarderSurroundings:
    """What every part of a forwarder shares.

    Args:
        clock: time.
        chance: randomness, for jitter.
        telemetry: who is told.
    """

    clock: Clock
    chance: Random
    telemetry: DispatchTelemetry
