"""Each fault of the proxy does what it says; a fault that does nothing would prove whatever is tested with it."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.crash.background import Background, background
from tests.crash.proxy import HOST, Proxy, proxy

PATIENCE_S = 5.0
SILENCE_S = 0.05
DELAY_S = 0.1


class Echo:
    """A server that sends back what it gets, until no more will come."""

    def __init__(self, loop: Background) -> None:
        self._ended: list[bytes] = []
        self._server = loop.call(asyncio.start_server(self._serve, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def ended(self) -> list[bytes]:
        """What each connection brought that was ended in good order."""
        return list(self._ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = b""
        with suppress(ConnectionError):
            while chunk := await reader.read(1024):
                got += chunk
                writer.write(chunk)
            self._ended.append(got)
        writer.close()

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
def loop() -> Iterator[Background]:
    with background() as loop:
        yield loop


@pytest.fixture
def echo(loop: Background) -> Iterator[Echo]:
    echo = Echo(loop)
    yield echo
    loop.call(echo.close())


@pytest.fixture
def between(echo: Echo) -> Iterator[Proxy]:
    with proxy(echo.port) as between:
        yield between


@pytest.fixture
def client(between: Proxy) -> Iterator[socket.socket]:
    """Connected and served."""
    with connected(between) as client:
        assert said_back(client, b"hello") == b"hello"
        yield client


def connected(between: Proxy) -> socket.socket:
    client = socket.create_connection((HOST, between.port), timeout=PATIENCE_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def said_back(client: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return client.recv(1024)


def is_reset(client: socket.socket) -> bool:
    """Whether the connection ends by a reset, and not by the news that no more will come."""
    try:
        said_back(client, b"anybody there?")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def is_turned_away(between: Proxy) -> bool:
    """Whether a new connection is reset, which may be as soon as it is made."""
    try:
        with connected(between) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_S)
    try:
        client.recv(1024)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE_S)
    return False


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "not in time"


def test_bytes_pass_both_ways_and_in_order_however_many(between: Proxy, client: socket.socket, echo: Echo) -> None:
    many = bytes(range(256)) * 4096
    client.settimeout(PATIENCE_S)
    got = b""
    for at in range(0, len(many), 16_384):
        client.sendall(many[at : at + 16_384])
        while len(got) < at + 16_384:
            got += client.recv(65_536)

    assert got == many
    assert between.connections == 1
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1024) == b""
    until(lambda: echo.ended == [b"hello" + many])
    until(lambda: between.connections == 0)


def test_a_cut_resets_every_connection_and_serves_new_ones(between: Proxy, client: socket.socket, echo: Echo) -> None:
    between.cut()

    assert between.connections == 0
    assert is_reset(client)
    with connected(between) as another:
        assert said_back(another, b"again") == b"again"
    assert b"hello" not in echo.ended  # the other side was reset, too, not told that no more will come


def test_refused_connections_are_reset_at_once_old_and_new_until_it_heals(
    between: Proxy, client: socket.socket
) -> None:
    between.refuse()

    assert is_reset(client)
    assert is_turned_away(between)
    between.heal()
    with connected(between) as healed:
        assert said_back(healed, b"again") == b"again"


def test_a_stall_lets_nothing_pass_and_loses_nothing(between: Proxy, client: socket.socket) -> None:
    between.stall()
    client.sendall(b"held up")
    with connected(between) as another:
        another.sendall(b"and so is a new one")

        assert is_silent(client)
        assert is_silent(another)
        between.heal()
        assert client.recv(1024) == b"held up"
        assert another.recv(1024) == b"and so is a new one"


def test_a_stall_holds_back_the_news_that_a_side_has_gone(between: Proxy, client: socket.socket, echo: Echo) -> None:
    between.stall()
    client.close()

    assert between.connections == 1
    assert echo.ended == []
    between.heal()
    until(lambda: echo.ended == [b"hello"])


def test_each_chunk_comes_later_by_the_delay_until_it_heals(between: Proxy, client: socket.socket) -> None:
    between.slow(DELAY_S)
    began = time.monotonic()

    assert said_back(client, b"slowly") == b"slowly"
    assert time.monotonic() - began >= 2 * DELAY_S  # once each way
    between.slow(1000)
    client.sendall(b"never mind")
    assert is_silent(client)
    between.heal()
    assert client.recv(1024) == b"never mind"


def test_half_closed_the_client_hears_the_end_and_is_still_heard(
    between: Proxy, client: socket.socket, echo: Echo
) -> None:
    between.half_close()

    assert client.recv(1024) == b""
    client.sendall(b", still here")
    client.shutdown(socket.SHUT_WR)
    until(lambda: echo.ended == [b"hello, still here"])
    with connected(between) as another:
        assert said_back(another, b"whole") == b"whole"


def test_connections_are_reset_while_nobody_listens_behind_the_proxy(loop: Background) -> None:
    """As with a broker that was killed."""
    echo = Echo(loop)
    loop.call(echo.close())
    with proxy(echo.port) as between:
        assert is_turned_away(between)


def test_a_proxy_that_is_closed_leaves_no_connection_and_no_port(echo: Echo) -> None:
    with proxy(echo.port) as between:
        client = connected(between)
        assert said_back(client, b"hello") == b"hello"

    with client:
        assert is_reset(client)
    with pytest.raises(ConnectionRefusedError):
        connected(between)
