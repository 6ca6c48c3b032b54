"""Which aims of the poll policy the simulated figures meet, in plain words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console

from bench.parts.polling_table import (
    BACK_OFF,
    BACK_OFF_CLIENTS,
    KIND_CLIENTS,
    OURS,
    ROUND_ROBIN,
    Cell,
    Figures,
    Results,
)

ONE_A_SECOND = 0.4  # of the budget

TO_ROUND_ROBIN = 0.45
TO_BACK_OFF = 0.12
WORSE_ANYWHERE = 1.05
P99 = 1.0


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim.

    Args:
        text: what is wanted.
        found: what is, in words.
        met: whether that is enough.
    """

    text: str
    found: str
    met: bool


def show_aims(console: Console, results: Results) -> None:
    """Print which aims are met, and which are not."""
    for aim in _aims(results):
        console.print(f"{'met    ' if aim.met else 'NOT MET'}  {aim.text}: {aim.found}", soft_wrap=True)


def _aims(results: Results) -> Iterator[Aim]:
    if Cell("three", ONE_A_SECOND, OURS) in results:
        yield from _at_one_a_second({cell.policy: found for cell, found in results.items() if _is_the_one(cell)})
    for text, figure, most in EVERYWHERE:
        ratios = {
            cell: figure(found) / figure(results[Cell(cell.workload, cell.fill, ROUND_ROBIN)])
            for cell, found in results.items()
            if cell.policy == OURS
        }
        yield _everywhere(f"{text} to that of round robin", ratios, most)


EVERYWHERE: tuple[tuple[str, Callable[[Figures], float], float], ...] = (
    ("mean", lambda figures: figures.mean, WORSE_ANYWHERE),
    ("mean from a cold start", lambda figures: figures.cold_mean, WORSE_ANYWHERE),
    ("p99", lambda figures: figures.p99, P99),
    ("p99 from a cold start", lambda figures: figures.cold_p99, P99),
)


def _is_the_one(cell: Cell) -> bool:
    return (cell.workload, cell.fill) == ("three", ONE_A_SECOND)


def _at_one_a_second(found: dict[str, Figures]) -> Iterator[Aim]:
    ours = found[OURS]
    for policy, most in (
        (ROUND_ROBIN, TO_ROUND_ROBIN),
        (BACK_OFF, TO_BACK_OFF),
        (BACK_OFF_CLIENTS, TO_BACK_OFF),
        (KIND_CLIENTS, TO_BACK_OFF),
    ):
        traces = [mine / theirs for mine, theirs in zip(ours.seeds, found[policy].seeds, strict=True)]
        words = f"{ours.mean / found[policy].mean:.3f} (of single traces {min(traces):.3f} to {max(traces):.3f})"
        text = f"three kinds, 1 job/s: mean to that of {policy} at most {most:g}"
        yield Aim(text, words, met=ours.mean / found[policy].mean <= most)
    p99 = ours.p99 / found[ROUND_ROBIN].p99
    yield Aim(f"three kinds, 1 job/s: p99 to that of round robin at most {P99:g}", f"{p99:.2f}", met=p99 <= P99)


def _everywhere(text: str, ratios: dict[Cell, float], most: float) -> Aim:
    beyond = {cell: ratio for cell, ratio in ratios.items() if ratio > most}
    worst = max(ratios, key=ratios.__getitem__)
    found = f"{ratios[worst]:.2f} at the worst ({worst.workload}, {worst.fill:.0%} of the budget)"
    if beyond:
        where = ", ".join(f"{cell.workload} {cell.fill:.0%} {ratio:.2f}" for cell, ratio in beyond.items())
        found += f"; beyond it in {len(beyond)} of {len(ratios)}: {where}"
    return Aim(f"everywhere: {text} at most {most:g}", found, met=not beyond)
