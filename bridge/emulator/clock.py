"""The only place where the emulator reads a clock or sleeps."""

import asyncio
import time


class Clock:
    """Emulated time: unix seconds that start at the real time and may run faster or slower."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._emulated = self.real_now()
        self._real = time.monotonic()

    def now(self) -> float:
        """Give the emulated time; it never goes back."""
        return self._emulated + (time.monotonic() - self._real) * self._speed

    def real_now(self) -> float:
        """Give the real time, by which clients date their signatures."""
        return time.time()  # noqa: TID251 -- this is the clock

    def run_at(self, speed: float) -> None:
        """Change the speed from now on, without a jump."""
        self._emulated, self._real = self.now(), time.monotonic()
        self._speed = speed

    async def sleep(self, seconds: float) -> None:
        """Sleep for that many emulated seconds."""
        await asyncio.sleep(seconds / self._speed)  # noqa: TID251 -- this is the clock
