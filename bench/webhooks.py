"""One forwarder from order to POST, beside a plain script that posts the same without any durability.

    python bench/webhooks.py [--only deliveries|isolation|backlog|fan-out] [--broker apache|embedded|HOST:PORT] …

Broker, receivers and what is measured are processes of their own on this machine; CPU and memory are those of the
measured process alone. Delays are from handing an event's orders to the producer to the receipt of the whole POST.
"""

import argparse
import logging
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.backlog import measure_backlog
from bench.parts.deliveries import ENDPOINTS, Delays, measure_delays, measure_deliveries
from bench.parts.fan_out import JOB_S, measure_fan_out
from bench.parts.stack import FORWARDER, broker

PLAIN_POSTS = (sys.executable, "-m", "bench.parts.plain_posts")
PARTS = ("deliveries", "isolation", "backlog", "fan-out")
ROUNDS = 2  # in turn, and the better one counts: a broker just started is slow
SUBSCRIBED = (0, 1, 20)


def show_deliveries(console: Console, servers: str, count: int) -> None:
    commands = (FORWARDER, PLAIN_POSTS)
    rounds = [[measure_deliveries(servers, command, count) for command in commands] for _ in range(ROUNDS)]
    forwarder, plain = (min(each, key=lambda taken: taken.cpu_ms) for each in zip(*rounds, strict=True))
    title = f"{count:,} deliveries to {ENDPOINTS} endpoints, ordered beforehand"
    table = Table("", "forwarder", "plain script", "ratio", "aim", title=title)
    table.add_row(
        "deliveries a second, on this machine",
        f"{forwarder.per_s:,.0f}",
        f"{plain.per_s:,.0f}",
        f"{forwarder.per_s / plain.per_s:.2f}",
        "1,500",
    )
    ratio = forwarder.cpu_ms / plain.cpu_ms
    table.add_row("CPU ms a delivery", f"{forwarder.cpu_ms:.2f}", f"{plain.cpu_ms:.2f}", f"{ratio:.2f}")
    table.add_row("resident MB", f"{forwarder.resident_mb:.0f}", f"{plain.resident_mb:.0f}")
    console.print(table)


def show_isolation(console: Console, servers: str, rate: float, seconds: float) -> None:
    rounds = [
        [measure_delays(servers, per_second=rate, seconds=seconds, hanging=hanging) for hanging in (0, 1)]
        for _ in range(ROUNDS)
    ]
    healthy, beside = (_better(each) for each in zip(*rounds, strict=True))
    title = f"{rate:g} deliveries a second to {ENDPOINTS} endpoints: ms from order to receipt, at those that answer"
    table = Table("", "all answer", "one hangs", "ratio", "aim", title=title)
    table.add_row("p50", f"{healthy.p50:.1f}", f"{beside.p50:.1f}", f"{beside.p50 / healthy.p50:.2f}")
    table.add_row("p99", f"{healthy.p99:.1f}", f"{beside.p99:.1f}", f"{beside.p99 / healthy.p99:.2f}", "1.5")
    table.add_row("deliveries", f"{healthy.deliveries:,}", f"{beside.deliveries:,}")
    console.print(table)


def _better(measured: tuple[Delays, ...]) -> Delays:
    return min(measured, key=lambda delays: delays.p99)


def show_backlog(console: Console, servers: str, count: int) -> None:
    empty, full = measure_backlog(servers, count)
    title = "A forwarder that takes pending deliveries over, all endpoints paused"
    table = Table("", "none", f"{count:,} pending", "aim", title=title)
    table.add_row("s from its start to all partitions open", f"{empty.restored_s:.1f}", f"{full.restored_s:.1f}", "10")
    table.add_row("CPU s until then", f"{empty.cpu_s:.1f}", f"{full.cpu_s:.1f}")
    table.add_row("resident MB", f"{empty.resident_mb:.0f}", f"{full.resident_mb:.0f}", "400")
    table.add_row("most resident MB until then", f"{empty.peak_mb:.0f}", f"{full.peak_mb:.0f}")
    console.print(table)


def show_fan_out(console: Console, servers: str, jobs: int) -> None:
    rounds = [[measure_fan_out(servers, endpoints, jobs) for endpoints in SUBSCRIBED] for _ in range(ROUNDS)]
    best = [min(each, key=lambda taken: taken.cpu_ms) for each in zip(*rounds, strict=True)]
    title = f"A worker, {jobs:,} requests at once, jobs of {JOB_S} s: what orders for webhooks cost it"
    table = Table("endpoints that want every event", *(f"{each.endpoints}" for each in best), title=title)
    table.add_row("orders a job", *(f"{each.orders:.1f}" for each in best))
    table.add_row("CPU ms a job", *(f"{each.cpu_ms:.2f}" for each in best))
    table.add_row("jobs a second, on this machine", *(f"{each.jobs_per_s:,.0f}" for each in best))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--broker", default="apache", help="apache, embedded or HOST:PORT")
    parser.add_argument("--deliveries", type=int, default=20_000, help="deliveries of the first part")
    parser.add_argument("--rate", type=float, default=200, help="deliveries a second of the isolation part")
    parser.add_argument("--seconds", type=float, default=20, help="length of each of its four runs")
    parser.add_argument("--pending", type=int, default=100_000, help="deliveries of the backlog part")
    parser.add_argument("--jobs", type=int, default=2000, help="requests of the fan-out part")
    options = parser.parse_args()
    parts = options.only or PARTS
    console = Console()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it retries is no figure
    with broker(options.broker) as servers:
        if "deliveries" in parts:
            show_deliveries(console, servers, options.deliveries)
        if "isolation" in parts:
            show_isolation(console, servers, options.rate, options.seconds)
        if "backlog" in parts:
            show_backlog(console, servers, options.pending)
        if "fan-out" in parts:
            show_fan_out(console, servers, options.jobs)


if __name__ == "__main__":
    main()
