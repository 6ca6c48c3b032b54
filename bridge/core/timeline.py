"""Items in the order of their times, for lists that are read newest first and page by page."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")

Mark = tuple[datetime, str]
"""Where an item stands in a list: its time, then its id, for items of the same time."""

_LATE_ENOUGH = 1_000
"""An item that belongs this far from the end is not moved there at once: all are sorted when the list is next read."""


class Timeline(Generic[T]):
    """Items by id, each with a time.

    What comes in is mostly the newest, so that adding is cheap; what was taken out leaves its mark behind for a while.
    """

    def __init__(self) -> None:
        self._items: dict[str, tuple[datetime, T]] = {}
        self._marks: list[Mark] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._items)

    def get(self, item_id: str) -> T | None:
        """One item."""
        found = self._items.get(item_id)
        return None if found is None else found[1]

    def put(self, item_id: str, time: datetime, item: T) -> None:
        """Add an item, or put it in the place of the one with this id.

        Args:
            item_id: names it.
            time: its place; counts as UTC if it is not aware.
            item: what is kept.
        """
        time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        former = self._items.get(item_id)
        self._items[item_id] = (time, item)
        if former is None or former[0] != time:
            self._add((time, item_id))

    def drop(self, item_id: str) -> T | None:
        """Take an item out, if it is there."""
        found = self._items.pop(item_id, None)
        if found is None:
            return None
        if not self._items:
            self._marks.clear()
        return found[1]

    def first_in(self) -> str:
        """Id of the item that was added before all others.

        Raises:
            StopIteration: there is none.
        """
        return next(iter(self._items))

    def newest_first(
        self, *, before: Mark | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[tuple[Mark, T]]:
        """The items, those with the latest times first; the timeline must not change meanwhile.

        Args:
            before: only those that come after this one in the list.
            since, until: only those of these times, both included.
        """
        if not self._is_sorted:
            self._marks.sort()
            self._is_sorted = True
        end = len(self._marks) if before is None else bisect_left(self._marks, before)
        if until is not None:
            end = min(end, bisect_right(self._marks, until, key=itemgetter(0)))
        yielded = None
        for place in range(end - 1, -1, -1):
            time, item_id = mark = self._marks[place]
            if since is not None and time < since:
                return
            found = self._items.get(item_id)
            if found is not None and found[0] == time and mark != yielded:  # twice, if it was taken out and put back
                yielded = mark
                yield mark, found[1]

    def _add(self, mark: Mark) -> None:
        if not self._marks or mark > self._marks[-1]:
            self._marks.append(mark)
        elif self._is_sorted and mark > self._marks[-_LATE_ENOUGH:][0]:
            insort(self._marks, mark)
        else:
            self._marks.append(mark)
            self._is_sorted = False
        if len(self._marks) > 2 * len(self._items) + _LATE_ENOUGH:
            self._marks = [(time, item_id) for item_id, (time, _) in self._items.items()]
            self._is_sorted = False
