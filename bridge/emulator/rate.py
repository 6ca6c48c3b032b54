"""The limit of requests a second. Pure."""

from collections import defaultdict, deque


class RateLimit:
    """Admits so many requests in any one second, strictly, for each scope by itself."""

    def __init__(self) -> None:
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    def wait(self, scope: str, rate: float, now: float) -> float:
        """Admit a request and give 0, or else give how long to wait; what is not admitted does not count."""
        if not rate:
            return 0.0
        capacity = max(int(rate), 1)
        window = capacity / rate
        admitted = self._admitted[scope]
        while admitted and admitted[0] <= now - window:
            admitted.popleft()
        if len(admitted) >= capacity:
            return admitted[-capacity] + window - now
        admitted.append(now)
        return 0.0


class PeakRate:
    """Watches how many requests came in the busiest second."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.peak = 0

    def count(self, now: float) -> None:
        """Count a request."""
        self._recent.append(now)
        while self._recent[0] <= now - 1:
            self._recent.popleft()
        self.peak = max(self.peak, len(self._recent))
