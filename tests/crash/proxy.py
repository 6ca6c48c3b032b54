"""A TCP proxy in front of one address of the loopback, which at a word does what networks do on bad days.

Bytes pass through two pumps a connection, one each way. A fault holds for all connections alike, old and new.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress

from bridge.adapters.clock import SystemClock
from tests.crash.background import Background, background

HOST = "127.0.0.1"
_CHUNK = 64 * 1024
_BACKLOG = 200
_RESET = struct.pack("ii", 1, 0)
"""As SO_LINGER: close with a RST, and throw away what is not sent yet."""


class Proxy:
    """The proxy, as tests use it; its methods return once what they say holds, and may be called by any thread.

    Args:
        background: where it works.
        target_port: what it stands in front of; nobody need listen there, connections are reset then.
        port: where it listens; 0 is a free port.
    """

    def __init__(self, background: Background, target_port: int, port: int = 0) -> None:
        self._background = background
        self._target_port = target_port
        self._listener = socket.create_server((HOST, port), backlog=_BACKLOG)
        self._listener.settimeout(0)
        self._clock = SystemClock()
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._is_refusing = False
        self._delay_s = 0.0
        self._passing, self._healed = asyncio.Event(), asyncio.Event()
        self._passing.set()
        self.port: int = self._listener.getsockname()[1]
        self._accepting: asyncio.Task[None] | None = None
        self._do(self._begin())

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections now; new ones are served."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Reset all connections, and every new one at once, until `heal`."""

        async def refuse() -> None:
            self._is_refusing = True
            await self._cut()

        self._do(refuse())

    def stall(self) -> None:
        """Connections stay open and new ones are accepted, but no byte passes, nor the news of an end, until `heal`."""

        async def stall() -> None:
            self._passing.clear()

        self._do(stall())

    def slow(self, delay_s: float) -> None:
        """Hand each chunk on, and connect, so many seconds later, until `heal`."""

        async def slow() -> None:
            self._delay_s = delay_s
            self._healed.clear()

        self._do(slow())

    def half_close(self) -> None:
        """Tell the clients of all connections now open that no more will come; what they send still passes."""

        async def half_close() -> None:
            for link in self._links:
                link.end_towards_client()

        self._do(half_close())

    def heal(self) -> None:
        """End what `refuse`, `stall` and `slow` have begun; connections that are open go on."""

        async def heal() -> None:
            self._is_refusing, self._delay_s = False, 0.0
            self._passing.set()
            self._healed.set()

        self._do(heal())

    def close(self) -> None:
        """Reset all connections and accept no more."""

        async def close() -> None:
            if self._accepting is not None:
                self._accepting.cancel()
                await asyncio.wait([self._accepting])
            await self._cut()
            self._listener.close()

        self._do(close())

    def _do(self, work: Coroutine[object, object, None]) -> None:
        self._background.call(work)

    # ---- from here on in the loop's thread

    async def _begin(self) -> None:
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            if self._is_refusing:
                _reset(client)
                continue
            link = _Link(client)
            self._links[link] = asyncio.create_task(self._serve(link))

    async def _serve(self, link: "_Link") -> None:
        try:
            await self._hold_back()
            await asyncio.get_running_loop().sock_connect(link.server, (HOST, self._target_port))
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link.client, link.server))
                pumps.create_task(self._pump(link.server, link.client, link))
            link.close()
        except* OSError:
            link.reset()
        finally:
            self._links.pop(link, None)

    async def _pump(self, source: socket.socket, sink: socket.socket, towards_client: "_Link | None" = None) -> None:
        """Hand on what comes from one side, and in the end that no more will come."""
        loop = asyncio.get_running_loop()
        while chunk := await loop.sock_recv(source, _CHUNK):
            await self._hold_back()
            try:
                await loop.sock_sendall(sink, chunk)
            except BrokenPipeError:
                if towards_client is None or not towards_client.is_half_closed:
                    raise
        await self._hold_back()
        with suppress(OSError):  # it has gone itself meanwhile
            sink.shutdown(socket.SHUT_WR)

    async def _hold_back(self) -> None:
        if self._delay_s:
            await self._clock.wait(self._healed, self._delay_s)
        await self._passing.wait()

    async def _cut(self) -> None:
        serving = dict(self._links)
        for task in serving.values():
            task.cancel()
        await asyncio.gather(*serving.values(), return_exceptions=True)
        for link in serving:  # a task that is cancelled before it has begun cleans nothing up
            link.reset()
            self._links.pop(link, None)


class _Link:
    """A client's connection, and ours to the target on its behalf."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.is_half_closed = False
        for each in (self.client, self.server):
            each.settimeout(0)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end_towards_client(self) -> None:
        self.is_half_closed = True
        with suppress(OSError):  # it has gone itself
            self.client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(connection: socket.socket) -> None:
    if connection.fileno() < 0:  # closed already
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


@contextmanager
def proxy(target_port: int, port: int = 0) -> Iterator[Proxy]:
    """A proxy, gone at the end.

    Args:
        target_port, port: see `Proxy`.
    """
    with background() as loop:
        made = Proxy(loop, target_port, port)
        try:
            yield made
        finally:
            made.close()
