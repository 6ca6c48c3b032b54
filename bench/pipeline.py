"""One worker from topic to terminal event, beside a plain script that does the same without any durability.

    python bench/pipeline.py [--only throughput|latency|memory] [--broker apache|embedded|HOST:PORT] [--jobs 2000] …

Broker, emulator and what is measured are processes of their own on this machine; CPU and memory are those of the
measured process alone. The rate limit is off. Latency is from handing a request to the producer to reading the terminal
event with `read_committed`, less the time the job itself takes at the emulator.
"""

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.load import Requests, Terminals
from bench.parts.memory import measure_memory
from bench.parts.stack import BRIDGE, PLAIN, broker, emulator, measured, settings_for

JOB_S = 0.2
POLL_S = 0.1
LOW_LOAD = 10
WARM_UP = 200
ROUNDS = 2  # in turn, and the better one counts: a broker just started is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What many requests at once took."""

    jobs_per_s: float
    cpu_ms: float
    looks: float
    resident_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds beside the job's own, of few requests one by one."""

    p50: float
    p99: float
    cpu_ms: float


def measure_throughput(servers: str, command: Sequence[str], jobs: int) -> Throughput:
    with emulator(run_s=JOB_S) as tams:
        settings = settings_for(servers, tams, poll={"interval_s": POLL_S})
        requests, terminals = Requests(settings), Terminals(settings)
        with measured(command, settings) as process:
            process.await_partitions(settings.topics.partitions, seconds=60)
            terminals.await_all(list(requests.publish("warm", WARM_UP)), seconds=60)
            before, looks = process.usage(), tams.looks()
            sent = requests.publish("job", jobs)
            terminals.await_all(list(sent), seconds=300)
            after = process.usage()
            took = max(terminals.seen[name] for name in sent) - min(sent.values())
            terminals.close()
            assert tams.jobs() == jobs + WARM_UP, "a job was made twice"
            return Throughput(
                jobs_per_s=jobs / took,
                cpu_ms=(after.cpu_s - before.cpu_s) / jobs * 1e3,
                looks=(tams.looks() - looks) / jobs,
                resident_mb=after.resident_mb,
            )


def measure_latency(servers: str, command: Sequence[str], jobs: int) -> Latency:
    with emulator(run_s=JOB_S) as tams:
        settings = settings_for(servers, tams, poll={"interval_s": JOB_S * 1.05})
        requests, terminals = Requests(settings), Terminals(settings)
        with measured(command, settings) as process:
            process.await_partitions(settings.topics.partitions, seconds=60)
            terminals.await_all(list(requests.publish("warm", 20, per_second=LOW_LOAD)), seconds=60)
            before = process.usage()
            sent = requests.publish("job", jobs, per_second=LOW_LOAD)
            terminals.await_all(list(sent), seconds=60)
            after = process.usage()
            terminals.close()
        took = sorted((terminals.seen[name] - sent[name] - JOB_S) * 1e3 for name in sent)
        return Latency(
            p50=statistics.median(took),
            p99=took[min(len(took) - 1, int(len(took) * 0.99))],
            cpu_ms=(after.cpu_s - before.cpu_s) / jobs * 1e3,
        )


def show_throughput(console: Console, servers: str, jobs: int) -> None:
    rounds = [[measure_throughput(servers, command, jobs) for command in (BRIDGE, PLAIN)] for _ in range(ROUNDS)]
    bridge, plain = (min(each, key=lambda taken: taken.cpu_ms) for each in zip(*rounds, strict=True))
    table = Table("", "bridge", "plain script", "ratio", "aim", title=f"{jobs:,} requests at once, jobs of {JOB_S} s")
    table.add_row(
        "jobs a second, on this machine",
        f"{bridge.jobs_per_s:,.0f}",
        f"{plain.jobs_per_s:,.0f}",
        f"{bridge.jobs_per_s / plain.jobs_per_s:.2f}",
    )
    table.add_row(
        "jobs a second of one core's CPU", f"{1e3 / bridge.cpu_ms:,.0f}", f"{1e3 / plain.cpu_ms:,.0f}", "", "400"
    )
    ratio = bridge.cpu_ms / plain.cpu_ms
    table.add_row("CPU ms a job", f"{bridge.cpu_ms:.2f}", f"{plain.cpu_ms:.2f}", f"{ratio:.2f}", "2")
    table.add_row("looks a job", f"{bridge.looks:.1f}", f"{plain.looks:.1f}")
    table.add_row("resident MB", f"{bridge.resident_mb:.0f}", f"{plain.resident_mb:.0f}")
    console.print(table)


def show_latency(console: Console, servers: str, jobs: int) -> None:
    bridge, plain = (measure_latency(servers, command, jobs) for command in (BRIDGE, PLAIN))
    title = f"{jobs} requests, {LOW_LOAD} a second: ms from request to terminal event, beside the job's {JOB_S} s"
    table = Table("", "bridge", "plain script", "added", "aim", title=title)
    table.add_row("p50", f"{bridge.p50:.1f}", f"{plain.p50:.1f}", f"{bridge.p50 - plain.p50:.1f}", "20")
    table.add_row("p99", f"{bridge.p99:.1f}", f"{plain.p99:.1f}", f"{bridge.p99 - plain.p99:.1f}")
    table.add_row("CPU ms a job", f"{bridge.cpu_ms:.1f}", f"{plain.cpu_ms:.1f}")
    console.print(table)


def show_memory(console: Console, servers: str, jobs: int) -> None:
    empty, full = measure_memory(servers, jobs)
    table = Table(
        "", "no job", f"{jobs:,} jobs", "aim", title="A worker that takes jobs in flight over (graphs of 1 kB)"
    )
    table.add_row("s from its start to all partitions open", f"{empty.restored_s:.1f}", f"{full.restored_s:.1f}", "10")
    table.add_row("CPU s until then", f"{empty.cpu_s:.1f}", f"{full.cpu_s:.1f}")
    table.add_row("resident MB", f"{empty.resident_mb:.0f}", f"{full.resident_mb:.0f}", "600")
    table.add_row("most resident MB until then", f"{empty.peak_mb:.0f}", f"{full.peak_mb:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("throughput", "latency", "memory"), action="append")
    parser.add_argument("--broker", default="apache", help="apache, embedded or HOST:PORT")
    parser.add_argument("--jobs", type=int, default=3000, help="requests of the throughput part")
    parser.add_argument("--low-load-jobs", type=int, default=150, help="requests of the latency part")
    parser.add_argument("--in-flight", type=int, default=100_000, help="jobs of the memory part")
    options = parser.parse_args()
    parts = options.only or ("throughput", "latency", "memory")
    console = Console()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it retries is no figure
    with broker(options.broker) as servers:
        if "throughput" in parts:
            show_throughput(console, servers, options.jobs)
        if "latency" in parts:
            show_latency(console, servers, options.low_load_jobs)
        if "memory" in parts:
            show_memory(console, servers, options.in_flight)


if __name__ == "__main__":
    main()
