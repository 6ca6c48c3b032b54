"""The clock of the machine; the only place that reads it."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `bridge.ports.Clock`."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See the port."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """See the port."""
        if event.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
