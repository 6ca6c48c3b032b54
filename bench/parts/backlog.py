"""Deliveries that wait: what a forwarder that holds them weighs, and how soon it has them back."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.parts.stack import FORWARDER, measured
from bench.parts.webhooks import Subscribers, orders_of, webhook_settings
from bridge.adapters.kafka.deliveries import KafkaDispatchLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.core.deliveries import take_in
from bridge.core.fanout import partition_of
from bridge.settings import Settings
from bridge.webhook_messages import Order
from bridge.webhook_ports import DispatchChanges

ENDPOINTS = 20
AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A forwarder with so many deliveries."""

    restored_s: float
    cpu_s: float
    resident_mb: float
    peak_mb: float


def measure_backlog(servers: str, count: int) -> tuple[Backlog, Backlog]:
    """A forwarder without deliveries, and one that takes so many over, for endpoints that are paused."""
    empty = _restored(webhook_settings(servers))
    settings = webhook_settings(servers)
    subscribers = Subscribers.of(settings)
    subscribers.register([f"http://127.0.0.1:9/hook/{number}" for number in range(ENDPOINTS)], paused=True)
    asyncio.run(_fill(settings, subscribers, count // ENDPOINTS))
    return empty, _restored(settings)


def _restored(settings: Settings) -> Backlog:
    began = time.perf_counter()
    with measured(FORWARDER, settings) as process:
        process.await_partitions(settings.topics.partitions, seconds=120)
        seconds, usage = time.perf_counter() - began, process.usage()
        return Backlog(restored_s=seconds, cpu_s=usage.cpu_s, resident_mb=usage.resident_mb, peak_mb=usage.peak_mb)


async def _fill(settings: Settings, subscribers: Subscribers, events: int) -> None:
    """Write the ledger of a forwarder that has taken in so many events for every endpoint."""
    topics = Topics(settings.kafka, settings.topics)
    counts = {state.name: state.partitions for state in await topics.check()}
    ledgers = KafkaDispatchLedgers(settings, topics.names, counts)
    by_partition: dict[int, list[Order]] = {}
    for number in range(events):
        for order in orders_of(number, subscribers.registry):
            partition = partition_of(order.endpoint_id, settings.topics.partitions)
            by_partition.setdefault(partition, []).append(order)
    for partition, orders in by_partition.items():
        async with ledgers.open(partition) as opened:
            for first in range(0, len(orders), AT_ONCE):
                await opened.ledger.commit(_taken_in(orders[first : first + AT_ONCE]))


def _taken_in(orders: list[Order]) -> DispatchChanges:
    changes = DispatchChanges(position=0)
    for order in orders:
        delivery = take_in(order, datetime.now(UTC))  # noqa: TID251 -- a bench takes the real time
        changes.deliveries[delivery.id] = delivery
        changes.events[delivery.id] = bytes(order.event)
    return changes
