"""Receivers of webhooks as fast as Python makes them: every endpoint of a bench in one process, on one port.

Run by `python -m bench.parts.receivers`; the first line on standard output is its address. `POST /hook/…` is answered
204 at once, `POST /hang/…` never. `GET /count` tells how many POSTs were answered, `GET /receipts` each of them, as
`[path, event id, seconds on the monotonic clock, which all processes of a machine share]`.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop
from typing_extensions import override

ROOT = Path(__file__).parents[2]
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
END_OF_HEAD = b"\r\n\r\n"

Receipt = tuple[str, str, float]


class _Connection(asyncio.Protocol):
    def __init__(self, receipts: list[Receipt]) -> None:
        self._receipts = receipts
        self._transport: asyncio.Transport
        self._received = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(END_OF_HEAD)) >= 0:
            head = self._received[:end]
            length = _length(head)
            if len(self._received) < end + len(END_OF_HEAD) + length:
                return
            body = self._received[end + len(END_OF_HEAD) :][:length]
            self._received = self._received[end + len(END_OF_HEAD) + length :]
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        if path.startswith("/hook/"):
            start = body.index(b'"id":"') + 6
            self._receipts.append((path, body[start : body.index(b'"', start)].decode(), time.monotonic()))
            self._transport.write(ANSWER)
        elif path == "/count":
            self._tell(len(self._receipts))
        elif path == "/receipts":
            self._tell(self._receipts)

    def _tell(self, document: object) -> None:
        content = json.dumps(document).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


def _length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    return int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


@dataclass(frozen=True, slots=True)
class Receivers:
    """The process, from outside."""

    url: str

    def hook(self, number: int) -> str:
        """URL of an endpoint that answers."""
        return f"{self.url}/hook/{number}"

    def hanging(self, number: int) -> str:
        """URL of an endpoint that never does."""
        return f"{self.url}/hang/{number}"

    def count(self) -> int:
        """How many POSTs were answered."""
        return cast("int", self._ask("/count"))

    def receipts(self) -> list[Receipt]:
        """Each of them."""
        return [(path, event_id, when) for path, event_id, when in cast("list[Receipt]", self._ask("/receipts"))]

    def await_count(self, count: int, *, seconds: float) -> None:
        """Return once so many POSTs were answered."""
        until = time.perf_counter() + seconds
        while (found := self.count()) < count:
            assert time.perf_counter() < until, f"{found} of {count} POSTs within {seconds} s"
            time.sleep(0.02)

    def _ask(self, path: str) -> object:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()


@contextmanager
def receivers() -> Iterator[Receivers]:
    """The process, gone at the end."""
    command = [sys.executable, "-m", "bench.parts.receivers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield Receivers(process.stdout.readline().strip())
        finally:
            process.terminate()


async def _serve() -> None:
    receipts: list[Receipt] = []
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(receipts), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
