"""How soon news is found: ways to choose the next job to look at, side by side.

    python bench/polling.py [--only table|choice|emulator] [--quick] [--seeds 3] [--plot docs/polling.png]

The table is a simulation at five calls a second: what the policies are is in `bench/parts/polling_policies.py`, what
the jobs are in `polling_workloads.py`. "Budget" is the part of those calls that the arrivals need at the least, for a
submit and one look each: five calls a second carry 2.5 jobs a second at the most, and one job a second fills 40 %.
`choice` measures the processor's time for one choice among 100,000 jobs. `emulator` runs a real worker against the
emulator, both with a fast clock, and compares what it finds with the simulation of the same trace. `--plot` draws
instead, unless parts are named as well; it needs the dependency group `bench`.
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.polling_aims import ONE_A_SECOND, show_aims
from bench.parts.polling_choice import measure_choice
from bench.parts.polling_emulator import measure_emulator
from bench.parts.polling_table import FILLS, measure_table
from bench.parts.polling_workloads import WORKLOADS

PARTS = ("table", "choice", "emulator")
LEAST_COLUMNS = 150  # the table is wide, and no use if it is cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--quick", action="store_true", help="one trace, two rates, fewer workloads, shorter runs")
    parser.add_argument("--workload", choices=tuple(WORKLOADS), action="append", help="of the table; all if not given")
    parser.add_argument("--seeds", type=int, default=3, help="traces for each workload and rate")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that simulate at the same time")
    parser.add_argument("--jobs", type=int, default=100_000, help="in flight, of the choice")
    parser.add_argument("--speed", type=float, default=20.0, help="emulated seconds to a real one")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the plot of docs/polling.md")
    options = parser.parse_args()
    console = Console(width=max(Console().width, LEAST_COLUMNS))
    parts = options.only or (() if options.plot else PARTS)
    if "table" in parts:
        _table(console, options)
    if "choice" in parts:
        measure_choice(console, jobs=options.jobs, looks=5_000 if options.quick else 50_000)
    if "emulator" in parts:
        measure_emulator(console, speed=options.speed, horizon=900.0 if options.quick else 1800.0)
    if options.plot:
        from bench.parts.polling_plot import draw_plot  # noqa: PLC0415  needs the group `bench`

        draw_plot(options.plot, seeds=1 if options.quick else options.seeds, processes=options.processes)


def _table(console: Console, options: argparse.Namespace) -> None:
    quick = ("three", "thirty")
    results = measure_table(
        console,
        workloads=options.workload or (quick if options.quick else tuple(WORKLOADS)),
        fills=(ONE_A_SECOND, FILLS[-1]) if options.quick else FILLS,
        seeds=1 if options.quick else options.seeds,
        processes=options.processes,
    )
    show_aims(console, results)


if __name__ == "__main__":
    main()
