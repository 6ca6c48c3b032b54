"""Keys that stand in line, each at its time; a key that leaves or moves costs no search."""

import heapq
from collections.abc import Hashable

_NEVER = float("inf")

# Places that were left are cleared away when they outnumber the others by so many: then that costs nearly nothing.
_LEFT_PLACES = 100


class Line:
    """Gives out keys in the order of their times, and of their coming where these are equal."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._places: dict[Hashable, int] = {}
        self._place = 0

    def __len__(self) -> int:
        """How many keys stand in line."""
        return len(self._places)

    def put(self, key: Hashable, at: float) -> None:
        """Let a key stand at a time; it leaves the place it has."""
        self._place += 1
        self._places[key] = self._place
        heapq.heappush(self._heap, (at, self._place, key))
        if len(self._heap) > 2 * len(self._places) + _LEFT_PLACES:
            self._heap = [entry for entry in self._heap if self._stands(entry)]
            heapq.heapify(self._heap)

    def drop(self, key: Hashable) -> None:
        """Let a key stand no longer; without effect if it does not."""
        self._places.pop(key, None)

    def first_at(self) -> float:
        """The time of the first key; infinity if there is none."""
        while self._heap and not self._stands(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else _NEVER

    def pop(self) -> Hashable:
        """Take the first key out; only if there is one."""
        while True:
            entry = heapq.heappop(self._heap)
            if self._stands(entry):
                del self._places[entry[2]]
                return entry[2]

    def _stands(self, entry: tuple[float, int, Hashable]) -> bool:
        _, place, key = entry
        return self._places.get(key) == place
