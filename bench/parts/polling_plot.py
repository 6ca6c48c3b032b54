"""The plot of docs/polling.md: delay over the used part of the budget. The only part that needs the group `bench`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.parts.polling_table import BACK_OFF, BACK_OFF_CLIENTS, KIND_CLIENTS, OURS, ROUND_ROBIN, Cell, simulate_all

FILLS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
LEAST_S, MOST_S = 0.3, 1000.0
"""Between which delays are drawn."""


@dataclass(frozen=True, slots=True)
class Line:
    """How one policy is drawn.

    Args:
        workload, policy: what is drawn.
        label: written beside the line.
        at: where it begins: part of the budget (%) and delay (s).
        colour: chosen so that no common colour blindness confuses them.
        style: of the line.
        width: of the line.
    """

    workload: str
    policy: str
    label: str
    at: tuple[float, float]
    colour: str
    style: str | tuple[int, tuple[float, ...]] = "-"
    width: float = 1.8


LINES = (
    Line("three", BACK_OFF_CLIENTS, "back-off, every job on its own", (10, 320), "#AA4499"),
    Line("three", KIND_CLIENTS, "the same, 429 not counted", (73.5, 350), "#AA4499", ":", 2.2),
    Line("three", "random", "random", (96.5, 265), "#777777", "-."),
    Line("three", BACK_OFF, "back-off,\ncoordinated", (8.8, 6.9), "#D55E00", "--"),
    Line("three", ROUND_ROBIN, "round robin", (96.5, 76), "#000000"),
    Line("three", OURS, "tams-bridge", (96.5, 38), "#0072B2", width=3.2),
    Line("progress", OURS, "… if progress\n   is shown", (96.5, 21), "#0072B2", (0, (4, 1.5)), 2.2),
)


def draw_plot(file: Path, *, seeds: int, processes: int) -> None:
    """Simulate what is drawn, and write the plot as a PNG."""
    cells = [Cell(line.workload, fill, line.policy) for line in LINES for fill in FILLS]
    means = {cell: found.mean for cell, found in simulate_all(cells, seeds=seeds, processes=processes)}
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        _draw(figure, [(line, [means[Cell(line.workload, fill, line.policy)] for fill in FILLS]) for line in LINES])
        figure.savefig(file, dpi=130, metadata={"Software": None})


def _draw(figure: Figure, lines: Sequence[tuple[Line, Sequence[float]]]) -> None:
    axes = figure.add_subplot()
    for line, means in lines:
        drawn = [mean if mean <= MOST_S else float("nan") for mean in means]
        parts = [fill * 100 for fill in FILLS]
        axes.plot(parts, drawn, linestyle=line.style, color=line.colour, linewidth=line.width)
        weight = "bold" if line.policy == OURS else "normal"
        axes.text(*line.at, line.label, color=line.colour, weight=weight, va="center", linespacing=0.95)
    axes.set_yscale("log")
    axes.set_ylim(LEAST_S, MOST_S)
    axes.set_xlim(8, 114)
    axes.set_xticks(range(10, 100, 10), [f"{part} %" for part in range(10, 100, 10)])
    ticks = (0.3, 1, 3, 10, 30, 100, 300, 1000)
    axes.set_yticks(ticks, [f"{seconds:g} s" for seconds in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_xlabel("part of five calls a second that the arrivals need at the least (40 %: one job a second)")
    axes.set_title("Mean delay from a job's end to its event; three kinds of job (8, 25, 90 s)", loc="left")
