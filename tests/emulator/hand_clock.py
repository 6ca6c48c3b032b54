"""An emulator on a clock that only the test moves."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
from typing_extensions import override

from bridge.emulator import Clock

START = 1_800_000_000.0

Emulate = Callable[..., Awaitable[httpx.AsyncClient]]


class HandClock(Clock):
    """A clock that stands still until a test moves it; sleeps are noted, and last until `sleeper` is done, if any."""

    def __init__(self) -> None:
        self.time = START
        self.slept: list[float] = []
        self.sleeper: asyncio.Future[None] | None = None
        super().__init__(1)

    @override
    def now(self) -> float:
        return self.time

    @override
    def real_now(self) -> float:
        return self.time

    @override
    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.sleeper:
            await self.sleeper
