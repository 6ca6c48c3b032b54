"""How soon the jobs of a killed worker are looked at again.

    python bench/failover.py [--runs 20] [--jobs 10000] [--session 15] [--broker apache|HOST:PORT] [--seed 1]

Two workers share the jobs in flight; one gets SIGKILL, and the time is taken until the emulator gets the first look by
the other at one of its jobs; then another worker is started, and so on. Nothing hides that look: the emulator has no
limit, and the workers a rate of 50 calls a second, shared by slots as always, of which the successor holds half all
along. With five calls a second it would come up to a second later, as the successor has as many jobs of its own.
"""

import argparse
import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.failovers import RATE, Failover, fleet
from bench.parts.stack import broker
from bridge.settings import KafkaSettings

ALLOWED_S = 2.0
PARTS: dict[str, Callable[[Failover], float]] = {
    "from the kill to the first look": lambda taken: taken.first_look,
    "  until its session has ended, and the other knows": lambda taken: taken.noticed,
    "  until its partitions are handed out": lambda taken: taken.assigned,
    "  until the first of them is restored": lambda taken: taken.opened,
    "  until a job in it is looked at": lambda taken: taken.looked,
    "from handing out until the last is restored": lambda taken: taken.all_opened,
    "longest time without any call meanwhile": lambda taken: taken.silence,
}


def show(console: Console, taken: Sequence[Failover], *, jobs: int, session_s: float) -> None:
    """Print all parts; the whole has an aim."""
    title = (
        f"{len(taken)} failovers, {jobs:,} jobs in flight, session time-out {session_s:g} s, {RATE} calls a second: s"
    )
    table = Table("", "median", "worst", "aim", title=title)
    for name, part in PARTS.items():
        seconds = [part(each) for each in taken]
        aim = f"{session_s + ALLOWED_S:g}" if part(taken[0]) == taken[0].first_look else ""
        table.add_row(name, f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}", aim)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="how often a worker is killed")
    parser.add_argument("--jobs", type=int, default=10_000, help="in flight")
    parser.add_argument(
        "--session",
        type=float,
        default=KafkaSettings().session_timeout_s,
        help="session time-out in seconds; brokers allow 6 or more unless told otherwise",
    )
    parser.add_argument("--broker", default="apache", help="apache or HOST:PORT")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it retries is no figure
    chance, taken = Random(options.seed), list[Failover]()
    with (
        broker(options.broker) as servers,
        fleet(servers, jobs=options.jobs, session_s=options.session) as workers,
    ):
        for number in range(options.runs):
            taken.append(workers.fail_over(chance))
            print(f"{number + 1}: {taken[-1].first_look:.2f} s", flush=True)
    show(Console(), taken, jobs=options.jobs, session_s=options.session)


if __name__ == "__main__":
    main()
