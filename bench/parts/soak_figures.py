"""Figures taken again and again, and whether they rise."""

import re
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

PARTS = 5
"""The first and the last of so many parts of the time are its start and its end."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A process at one moment.

    Args:
        at: seconds.
        resident_mb: memory.
        files: open file descriptors; those of them that are `sockets`.
        threads: of the process.
        metrics: what it says of itself, summed over labels.
    """

    at: float
    resident_mb: float
    files: int
    sockets: int
    threads: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one figure went.

    Args:
        start, end: its medians in the first and the last part of the time.
        per_hour: slope of the straight line that fits best.
        rise: of that line over the whole time.
    """

    start: float
    end: float
    per_hour: float
    rise: float

    @classmethod
    def of(cls, times: Sequence[float], values: Sequence[float]) -> "Course":
        """That of these values at these times."""
        part = max(1, len(values) // PARTS)
        slope = statistics.linear_regression(times, values).slope if len(values) > 1 else 0.0
        return cls(
            start=statistics.median(values[:part]),
            end=statistics.median(values[-part:]),
            per_hour=slope * HOUR_S,
            rise=slope * (times[-1] - times[0]),
        )


def take_sample(pid: int, port: int) -> Sample:
    """Look at a process, and ask it."""
    status = Path(f"/proc/{pid}/status").read_text()
    kinds = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            kinds.append(str(file.readlink()).partition(":")[0])
    return Sample(
        at=time.perf_counter(),
        resident_mb=_number(status, "VmRSS") / 1e3,
        files=len(kinds),
        sockets=kinds.count("socket"),
        threads=_number(status, "Threads"),
        metrics=_metrics(port),
    )


def _number(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, flags=re.MULTILINE)
    assert found, f"/proc has no {name}"
    return int(found[1])


def _metrics(port: int) -> Mapping[str, float]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    sums: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            bare = name.partition("{")[0]
            sums[bare] = sums.get(bare, 0.0) + float(value)
    return sums
