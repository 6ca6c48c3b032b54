"""An event loop in a thread of its own, for what has to go on while a test waits for something else."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Background:
    """The loop, as other threads use it."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._has_begun.wait()

    def begin(self, work: Coroutine[object, object, T]) -> "Future[T]":
        """Begin some work; what becomes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[object, object, T]) -> T:
        """Do some work to its end; what it returns or raises."""
        return self.begin(work).result()

    def end(self) -> None:
        """Cancel what is still under way, and end the thread."""
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    async def _main(self) -> None:
        stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stop: Callable[[], None] = stopping.set
        self._has_begun.set()
        await stopping.wait()


@contextmanager
def background() -> Iterator[Background]:
    """Such a loop, ended at the end."""
    made = Background()
    try:
        yield made
    finally:
        made.end()
