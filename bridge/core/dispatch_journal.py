"""What a dispatcher has to write down: collected step by step, handed over for one transaction at a time."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from bridge.core.signatures import webhook_id
from bridge.ports import DeadLetter
from bridge.webhook_messages import (
    After,
    Attempt,
    DeadDelivery,
    DeadReason,
    Delivery,
    Endpoint,
    EndpointStatus,
    Exchange,
    Notice,
    NoticeType,
    Replay,
)
from bridge.webhook_ports import DispatchChanges


@dataclass(slots=True)
class Held:
    """A delivery that has not ended, as its partition holds it.

    Args:
        delivery: as it is now.
        event: the event's value.
        is_written: whether the ledger has a record of it.
    """

    delivery: Delivery
    event: bytes
    is_written: bool = False


class DispatchJournal:
    """Changes that are not written yet."""

    def __init__(self) -> None:
        self._changes = DispatchChanges()
        self._dirty: dict[str, Held] = {}
        self._is_empty = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return self._is_empty

    def moved_to(self, position: int) -> None:
        """All dispatch records before this one have been taken in."""
        self._changes.position = position
        self._is_empty = False

    def unreadable(self, letter: DeadLetter) -> None:
        """A dispatch record cannot be read."""
        self._changes.dead_letters.append(letter)

    def changed(self, held: Held) -> None:
        """A delivery is new, or waits for its next attempt."""
        self._dirty[held.delivery.id] = held
        self._is_empty = False

    def ended(self, held: Held) -> None:
        """A delivery has ended: the ledger forgets it, if it ever knew it."""
        delivery_id = held.delivery.id
        self._dirty.pop(delivery_id, None)
        self._is_empty = False
        if held.is_written:
            self._changes.deliveries[delivery_id] = None
            self._changes.events[delivery_id] = None

    def attempt(self, delivery: Delivery, endpoint: Endpoint, after: After, exchange: Exchange | None) -> None:
        """The last attempt of a delivery, or what it ended with instead."""
        self._is_empty = False
        self._changes.attempts.append(
            Attempt(
                delivery=delivery,
                webhook_id=webhook_id(delivery.endpoint_id, delivery.event_id),
                url=without_query(endpoint.url),
                attempt=delivery.attempts[-1],
                after=after,
                exchange=exchange,
            )
        )

    def dead(self, held: Held, reason: DeadReason, now: datetime) -> None:
        """A delivery is given up."""
        dead = DeadDelivery(delivery=held.delivery, reason=reason, time=now, event=msgspec.Raw(held.event))
        self._changes.dead.append(dead)

    def notice(self, kind: NoticeType, endpoint: Endpoint, detail: str, now: datetime) -> None:
        """Something an endpoint's owner should know."""
        self._is_empty = False
        self._changes.notices.append(
            Notice(
                id=f"{endpoint.id}.{kind.rpartition('.')[2]}.{now.timestamp():.6f}",
                type=kind,
                time=now,
                endpoint_id=endpoint.id,
                url=without_query(endpoint.url),
                detail=detail,
            )
        )

    def status(self, status: EndpointStatus | None) -> None:
        """An endpoint does better or worse than before; None if it does not."""
        if status is not None:
            self._changes.statuses[status.endpoint_id] = status
            self._is_empty = False

    def replay(self, replay: Replay, *, forgotten: bool = False) -> None:
        """A replay has moved, or is forgotten."""
        key = (replay.order.endpoint_id, replay.order.replay_id)
        self._changes.replays[key] = None if forgotten else replay
        self._is_empty = False

    def take(self) -> DispatchChanges:
        """Hand over everything since the last call."""
        changes, self._changes = self._changes, DispatchChanges()
        dirty, self._dirty = self._dirty, {}
        self._is_empty = True
        for delivery_id, held in dirty.items():
            changes.deliveries[delivery_id] = held.delivery
            if not held.is_written:
                changes.events[delivery_id] = held.event
                held.is_written = True
        return changes


def without_query(url: str) -> str:
    """A URL as it may be shown: queries often hold tokens."""
    return url.partition("#")[0].partition("?")[0]
