"""Every request the emulator got, so that tests can prove what was sent and what was not."""

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from bridge.emulator.rate import PeakRate
from bridge.emulator.wire import JsonObject

API_PATH = "/v1/"


class Entry(NamedTuple):
    """One request. The status is 0 where the connection was cut."""

    number: int
    emulated_at: float
    real_at: float
    method: str
    path: str
    route: str
    request_id: str
    job_id: str
    status: int
    fault: str
    app: str


class Journal:
    """The latest requests in memory, all of them in a file if one is given, and their counts."""

    def __init__(self, bound: int, file: Path | None) -> None:
        """Start empty; raise `OSError` if the file cannot be opened."""
        self._entries: deque[Entry] = deque(maxlen=bound)
        self._file = file.open("ab") if file else None
        self._answers: Counter[tuple[str, int]] = Counter()
        self._peak = PeakRate()
        self.total = 0

    def add(self, entry: Entry) -> None:
        """Write an entry down."""
        self.total = entry.number
        self._entries.append(entry)
        self._answers[entry.route, entry.status] += 1
        if entry.path.startswith(API_PATH):
            self._peak.count(entry.emulated_at)
        if self._file:
            self._file.write(_line(entry))
            self._file.flush()

    def lines(self, after: int) -> Iterator[bytes]:
        """Give the entries with a number above this one, as JSON lines."""
        dropped = self.total - len(self._entries)
        return map(_line, islice(self._entries, max(after - dropped, 0), None))

    def counts(self) -> JsonObject:
        """Count all requests by route and status, and the API requests in the busiest (emulated) second."""
        answers: dict[str, dict[str, int]] = {}
        for (route, status), count in sorted(self._answers.items()):
            answers.setdefault(route, {})[str(status)] = count
        return {"requests": self.total, "answers": answers, "peakRequestsPerSecond": self._peak.peak}

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def _line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry._asdict()) + b"\n"
