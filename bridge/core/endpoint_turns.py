"""Whose turn it is to be sent to, over all endpoints of a partition."""

import heapq

_NEVER = float("inf")


class EndpointTurns:
    """Gives the next turn to the endpoint that may be sent to and has waited longest for it.

    All times are seconds on one monotonic clock.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._turn_of: dict[str, tuple[float, int]] = {}
        self._order = 0

    def next_at(self) -> float:
        """When the next turn comes; infinity if none does."""
        while self._heap and self._turn_of.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else _NEVER

    def take(self) -> str:
        """The endpoint whose turn it is; only after `next_at` was asked for and has passed."""
        endpoint_id = heapq.heappop(self._heap)[2]
        del self._turn_of[endpoint_id]
        return endpoint_id

    def offer(self, endpoint_id: str, at: float, *, now: float) -> None:
        """An endpoint may be sent to from `at` on; it keeps the turn it has, if that is neither too early nor late."""
        if at == _NEVER:
            self._turn_of.pop(endpoint_id, None)
            return
        soonest = max(at, now)
        known = self._turn_of.get(endpoint_id)
        if known is None or not at <= known[0] <= soonest:
            self._order += 1
            turn = self._turn_of[endpoint_id] = (soonest, self._order)
            heapq.heappush(self._heap, (*turn, endpoint_id))

    def forget(self, endpoint_id: str) -> None:
        """An endpoint is gone."""
        self._turn_of.pop(endpoint_id, None)
