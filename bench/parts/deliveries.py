"""How many deliveries a process makes, at what cost, and how long events take to their receivers."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.parts.receivers import Receivers, receivers
from bench.parts.stack import FORWARDER, measured
from bench.parts.webhooks import Subscribers, webhook_settings

ENDPOINTS = 10
WARM_SHARE = 0.2  # of the deliveries: neither the start nor the first connections count
SETTLE_S = 0.5  # until the last outcomes are written


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """What many orders at once took."""

    per_s: float
    cpu_ms: float
    resident_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Milliseconds from an order to its receipt, at the endpoints that answer."""

    p50: float
    p99: float
    deliveries: int


def measure_deliveries(servers: str, command: Sequence[str], count: int) -> Deliveries:
    """Orders that lie in the topic already: the process is all that works, beside broker and receiver."""
    with receivers() as receiver:
        settings = webhook_settings(servers)
        subscribers = Subscribers.of(settings)
        subscribers.register([receiver.hook(number) for number in range(ENDPOINTS)])
        subscribers.publish(0, count // ENDPOINTS)
        with measured(command, settings) as process:
            process.await_partitions(settings.topics.partitions, seconds=60)
            receiver.await_count(int(count * WARM_SHARE), seconds=60)
            began, before, warm = time.perf_counter(), process.usage(), receiver.count()
            receiver.await_count(count, seconds=300)
            took = time.perf_counter() - began
            time.sleep(SETTLE_S)
            after = process.usage()
        _check(receiver, count)
        return Deliveries(
            per_s=(count - warm) / took,
            cpu_ms=(after.cpu_s - before.cpu_s) / (count - warm) * 1e3,
            resident_mb=after.resident_mb,
        )


def measure_delays(servers: str, *, per_second: float, seconds: float, hanging: int) -> Delays:
    """Deliveries at a steady rate, with so many of the endpoints hanging."""
    with receivers() as receiver:
        settings = webhook_settings(servers)
        subscribers = Subscribers.of(settings)
        urls = [receiver.hook(number) for number in range(ENDPOINTS - hanging)]
        subscribers.register(urls + [receiver.hanging(number) for number in range(hanging)])
        with measured(FORWARDER, settings) as process:
            process.await_partitions(settings.topics.partitions, seconds=60)
            pace = per_second / ENDPOINTS
            warm, events = int(pace * 3), int(pace * seconds)
            subscribers.publish(0, warm, per_second=pace)
            sent = subscribers.publish(warm, events, per_second=pace)
            receiver.await_count((warm + events) * len(urls), seconds=60)
        took = sorted((when - sent[name]) * 1e3 for _, name, when in receiver.receipts() if name in sent)
        return Delays(
            p50=statistics.median(took), p99=took[min(len(took) - 1, int(len(took) * 0.99))], deliveries=len(took)
        )


def _check(receiver: Receivers, count: int) -> None:
    receipts = receiver.receipts()
    assert len({receipt[:2] for receipt in receipts}) == len(receipts) == count, "not each event once"
