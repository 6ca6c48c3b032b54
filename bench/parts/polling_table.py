"""Workloads, rates and policies side by side: every cell simulated with the same traces, and what it came to."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.parts.polling_clients import Clients
from bench.parts.polling_policies import POLICIES
from bench.parts.polling_simulation import CALLS_PER_S, HORIZON_S, LATEST_S, WARM_S, Outcome, Simulation
from bench.parts.polling_workloads import WORKLOADS, Workload, trace

CALLS_PER_JOB = 2
"""A job costs a submit and a look at the least: that is what fills the budget."""

FILLS = (0.2, 0.4, 0.6, 0.8, 0.95)
"""Parts of the budget that the arrivals need at the least; 0.4 is one job a second at five calls a second."""

ROUND_ROBIN, BACK_OFF, OURS = "round robin", "back-off", "ours"
BACK_OFF_CLIENTS, KIND_CLIENTS = "back-off, clients", "back-off, kind clients"
CLIENTS = {BACK_OFF_CLIENTS: True, KIND_CLIENTS: False}
ALL_POLICIES = (*(name for name in POLICIES if name != "lower bound"), *CLIENTS, "lower bound")


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy under one workload at one rate.

    Args:
        workload, policy: by name.
        fill: part of the budget that the arrivals need at the least.
    """

    workload: str
    fill: float
    policy: str

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.fill * CALLS_PER_S / CALLS_PER_JOB


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a cell came to, over all its traces; times in seconds.

    Args:
        mean, p50, p95, p99: of the delay from a job's end to the look that saw it, of ends after ten minutes.
        cold_mean, cold_p99: the same from the start on.
        looks: for each job.
        silence: the longest time any job was not looked at.
        seeds: the mean of each trace, in order.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    cold_mean: float
    cold_p99: float
    looks: float
    silence: float
    seeds: tuple[float, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Figures":
        """Put traces together."""
        warm = [_warm(outcome) for outcome in outcomes]
        delays = sorted(delay for each in warm for delay in each)
        cold = sorted(delay for outcome in outcomes for delay in outcome.delays)
        return cls(
            mean=_mean(delays),
            p50=_part(delays, 0.5),
            p95=_part(delays, 0.95),
            p99=_part(delays, 0.99),
            cold_mean=_mean(cold),
            cold_p99=_part(cold, 0.99),
            looks=sum(outcome.looks for outcome in outcomes) / sum(outcome.jobs for outcome in outcomes),
            silence=max(outcome.silence for outcome in outcomes),
            seeds=tuple(_mean(each) for each in warm),
        )


def _warm(outcome: Outcome) -> list[float]:
    ends = zip(outcome.ended_at, outcome.delays, strict=True)
    return [delay for ended_at, delay in ends if ended_at >= WARM_S]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _part(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")


def simulate(workload: Workload, policy: str, *, rate: float, seed: int, horizon: float = HORIZON_S) -> Outcome:
    """One trace under one policy, by name."""
    jobs = trace(workload, rate=rate, seconds=horizon + LATEST_S, turns_at=horizon / 2, seed=seed)
    slots = workload.slots(rate)
    if policy in CLIENTS:
        return Clients(jobs, slots=slots, heeds_429=CLIENTS[policy], horizon=horizon).run()
    return Simulation(workload, jobs, POLICIES[policy], slots=slots, horizon=horizon).run()


def _simulate_cell(cell: Cell, seed: int) -> Outcome:
    return simulate(WORKLOADS[cell.workload], cell.policy, rate=cell.rate, seed=seed)


def simulate_all(cells: Sequence[Cell], *, seeds: int, processes: int) -> Iterator[tuple[Cell, Figures]]:
    """Simulate every cell with so many traces; gives them in order, each as soon as it and those before are done."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        coming: list[tuple[Cell, list[Future[Outcome]]]] = [
            (cell, [pool.submit(_simulate_cell, cell, seed) for seed in range(seeds)]) for cell in cells
        ]
        for cell, outcomes in coming:
            yield cell, Figures.of([outcome.result() for outcome in outcomes])


Results = dict[Cell, Figures]


def measure_table(
    console: Console, *, workloads: Sequence[str], fills: Sequence[float], seeds: int, processes: int
) -> Results:
    """Simulate and print a table for each workload."""
    cells = [Cell(workload, fill, policy) for workload in workloads for fill in fills for policy in ALL_POLICIES]
    results: Results = {}
    for cell, figures in simulate_all(cells, seeds=seeds, processes=processes):
        results[cell] = figures
        if (cell.fill, cell.policy) == (fills[-1], ALL_POLICIES[-1]):
            console.print(_table(WORKLOADS[cell.workload], fills, results))
    return results


def _table(workload: Workload, fills: Sequence[float], results: Results) -> Table:
    table = Table(
        "budget",
        "policy",
        *("mean", "to r.r.", "p50", "p95", "p99", "to r.r.", "looks", "silence", "from 0", "to r.r."),
        title=f"{workload.title}: seconds from end to event, after ten minutes; and the mean from the start on",
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for fill in fills:
        base = results[Cell(workload.name, fill, ROUND_ROBIN)]
        for policy in ALL_POLICIES:
            cell = Cell(workload.name, fill, policy)
            first = f"{fill:.0%}, {cell.rate:g} jobs/s" if policy == ROUND_ROBIN else ""
            table.add_row(first, policy, *_row(results[cell], base), style="bold" if policy == OURS else None)
        table.add_section()
    return table


def _row(figures: Figures, base: Figures) -> tuple[str, ...]:
    return (
        f"{figures.mean:.2f}",
        f"{figures.mean / base.mean:.2f}",
        f"{figures.p50:.2f}",
        f"{figures.p95:.2f}",
        f"{figures.p99:.2f}",
        f"{figures.p99 / base.p99:.2f}",
        f"{figures.looks:.2f}",
        f"{figures.silence:.0f}",
        f"{figures.cold_mean:.2f}",
        f"{figures.cold_mean / base.cold_mean:.2f}",
    )
