"""Replays of past events to one endpoint: what was asked for, how far it is, and which events it finds.

asked for ──► RUNNING (bounds not known) ──► RUNNING ──all read──► DONE
                      └────────canceled────────┴──► CANCELED
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from bridge.core.layouts import UNREADABLE
from bridge.core.registry import Registry, wants
from bridge.messages import JobEvent
from bridge.webhook_messages import DeadDelivery, Order, Replay, ReplayOrder, ReplayState

REMEMBERED = timedelta(days=7)
"""How long a replay that has ended can be asked about."""


class Replays:
    """The replays of one partition."""

    def __init__(self) -> None:
        self._replays: dict[str, Replay] = {}

    def restore(self, replays: Iterable[Replay]) -> None:
        """Take over what the ledger holds."""
        self._replays = {replay.order.replay_id: replay for replay in replays}

    def running(self) -> list[Replay]:
        """Those that have not ended."""
        return [replay for replay in self._replays.values() if replay.state is ReplayState.RUNNING]

    def get(self, replay_id: str) -> Replay | None:
        """One of them."""
        return self._replays.get(replay_id)

    def begin(self, order: ReplayOrder, now: datetime) -> Replay | None:
        """A replay is asked for; None if it was before."""
        if order.replay_id in self._replays:
            return None
        return self._set(Replay(order=order, changed=now))

    def cancel(self, endpoint_id: str, replay_id: str, now: datetime) -> Replay | None:
        """A replay is to end; None if it has ended, or nobody knows it."""
        replay = self._running(replay_id)
        if replay is None or replay.order.endpoint_id != endpoint_id:
            return None
        return self._set(replace(replay, state=ReplayState.CANCELED, changed=now))

    def begun(self, replay_id: str, bounds: tuple[dict[str, int], dict[str, int]], now: datetime) -> Replay | None:
        """Where it begins and ends is known; None if it has ended meanwhile."""
        replay = self._running(replay_id)
        if replay is None:
            return None
        positions, ends = bounds
        return self._set(_moved(replace(replay, positions=positions, ends=ends, changed=now)))

    def read(
        self, replay_id: str, values: list[bytes], positions: Mapping[str, int], registry: Registry, now: datetime
    ) -> tuple[list[Order], Replay | None]:
        """Take in some past events.

        Returns:
            Orders for those that the endpoint wants, and the replay after them; nothing if it has ended meanwhile.
        """
        replay = self._running(replay_id)
        if replay is None:
            return [], None
        found = _found(replay.order, values, registry)
        moved = replace(
            replay,
            positions={**replay.positions, **positions},
            scanned=replay.scanned + len(values),
            matched=replay.matched + len(found),
            changed=now,
        )
        return found, self._set(_moved(moved))

    def forget(self, now: datetime) -> list[Replay]:
        """Those that have ended long enough ago; they are forgotten."""
        old = [
            replay
            for replay in self._replays.values()
            if replay.state is not ReplayState.RUNNING and replay.changed + REMEMBERED <= now
        ]
        for replay in old:
            del self._replays[replay.order.replay_id]
        return old

    def _running(self, replay_id: str) -> Replay | None:
        replay = self._replays.get(replay_id)
        return replay if replay is not None and replay.state is ReplayState.RUNNING else None

    def _set(self, replay: Replay) -> Replay:
        self._replays[replay.order.replay_id] = replay
        return replay


def _moved(replay: Replay) -> Replay:
    """Done once every position has reached its end."""
    if all(replay.positions.get(place, 0) >= end for place, end in replay.ends.items()):
        return replace(replay, state=ReplayState.DONE)
    return replay


def _found(asked: ReplayOrder, values: Iterable[bytes], registry: Registry) -> list[Order]:
    read = _read_dead if asked.failed_only else _read_event
    orders = [order for value in values if (order := read(asked, value, registry)) is not None]
    return [order for order in orders if asked.since <= order.time <= asked.until]


def _read_event(asked: ReplayOrder, value: bytes, registry: Registry) -> Order | None:
    try:
        event = msgspec.json.decode(value, type=JobEvent)
    except UNREADABLE:
        return None
    endpoint = registry.endpoints.get(asked.endpoint_id)
    if endpoint is None or asked.event_id not in {None, event.id}:
        return None
    if asked.event_id is None and not wants(endpoint, event.type, event.labels):
        return None
    return Order(
        endpoint_id=asked.endpoint_id,
        event_id=event.id,
        type=event.type,
        request_id=event.request_id,
        sequence=event.sequence,
        time=event.time,
        event=msgspec.Raw(value),
    )


def _read_dead(asked: ReplayOrder, value: bytes, registry: Registry) -> Order | None:
    del registry  # it was matched when it was ordered
    try:
        dead = msgspec.json.decode(value, type=DeadDelivery)
    except UNREADABLE:
        return None
    delivery = dead.delivery
    if delivery.endpoint_id != asked.endpoint_id or asked.event_id not in {None, delivery.event_id} or not dead.event:
        return None
    return Order(
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        type=delivery.type,
        request_id=delivery.request_id,
        sequence=delivery.sequence,
        time=delivery.time,
        event=msgspec.Raw(bytes(dead.event)),
        inline=delivery.inline,
    )
