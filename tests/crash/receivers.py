"""Receivers of webhooks in a process of their own: good ones, and one of each kind that is not.

    python -m tests.crash.receivers LOG '{"NAME": {"behaviour": "healthy", "secret": "whsec_…"}, …}'

A receiver's path is `/` and its name. Whatever arrives whole is checked by the package `standardwebhooks` and written
to the log before anything is answered, one JSON object a line; so is each connection to where the redirects lead. The
first line on standard output is the address.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO, cast

import uvloop
from standardwebhooks import Webhook, WebhookVerificationError

from tests.crash.processes import child
from tests.crash.webhook_judge import Receipt

ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
"""Both are private; the forwarders under test are allowed the first."""

Headers = Mapping[str, str]


class Receivers:
    """The process, from outside.

    Args:
        url: where it listens.
        log: what it has written down.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def receipts(self) -> list[Receipt]:
        """Every whole POST, in the order of arrival."""
        return [
            Receipt(
                place=(line["name"], line["event_id"]),
                webhook_id=line["webhook_id"],
                digest=line["digest"],
                problem=line["problem"],
            )
            for line in self._lines()
            if "name" in line
        ]

    def contacts(self) -> int:
        """How often somebody came to where the redirects lead."""
        return sum(1 for line in self._lines() if "contact" in line)

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._log.open() as lines:
            yield from (json.loads(line) for line in lines)


@contextmanager
def receivers(log: Path, behaviours: Mapping[str, Mapping[str, str]]) -> Iterator[Receivers]:
    """Receivers by name, gone at the end."""
    command = [sys.executable, "-m", "tests.crash.receivers", str(log), json.dumps(behaviours)]
    with child(command, {}) as process:
        process.await_lines(lambda lines: any("url" in line for line in lines), seconds=20, what="address")
        yield Receivers(next(line["url"] for line in process.lines if "url" in line), log)


# ------------------------------------------------------------------------------------------------------ in that process
@dataclass(frozen=True, slots=True)
class _Server:
    behaviours: Mapping[str, Mapping[str, str]]
    log: TextIO
    redirects: list[str]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as the other side and our behaviour want it."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._serve_one(reader, writer):
                await writer.drain()
        writer.close()

    def contacted(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody came to where a redirect leads."""
        self._note({"contact": writer.get_extra_info("sockname")})
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection is kept."""
        first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields if field)}
        body = await reader.readexactly(int(headers["content-length"]))
        name = first.split(" ")[1].removeprefix("/")
        behaviour = self.behaviours[name]
        self._note(
            {
                "name": name,
                "event_id": json.loads(body)["data"]["id"],
                "webhook_id": headers.get("webhook-id", ""),
                "digest": sha256(body).hexdigest(),
                "problem": _problem(behaviour["secret"], headers, body),
            }
        )
        return await self._behave(behaviour["behaviour"], reader, writer)

    async def _behave(self, behaviour: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        match behaviour:
            case "healthy":
                writer.write(_answer("204 No Content"))
            case "fails":
                writer.write(_answer("500 Internal Server Error"))
            case "throttles":
                writer.write(_answer("429 Too Many Requests", "Retry-After: 1"))
            case "redirects":
                self.redirects.append(self.redirects.pop(0))
                writer.write(_answer("302 Found", f"Location: {self.redirects[0]}"))
            case "hangs":
                await reader.read()
                return False
            case "drips":
                await _drip(_answer("200 OK"), reader, writer)
                return False
            case _:  # closes
                return False
        return True

    def _note(self, line: Mapping[str, object]) -> None:
        self.log.write(json.dumps(line) + "\n")


def _problem(secret: str, headers: Headers, body: bytes) -> str:
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError as error:
        return str(error)
    return ""


def _answer(status: str, *fields: str) -> bytes:
    length = () if status.startswith("204") else ("Content-Length: 0",)
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, *length, "", "")).encode()


async def _drip(answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte a second, until the other side has had enough."""
    for place in range(len(answer)):
        writer.write(answer[place : place + 1])
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), 1)
            return


async def _main(log: Path, behaviours: Mapping[str, Mapping[str, str]]) -> None:
    redirects: list[str] = []
    with log.open("a", buffering=1) as lines:
        server = _Server(behaviours, lines, redirects)
        for host in (FORBIDDEN, ALLOWED):
            target = await asyncio.start_server(server.contacted, host, 0)
            redirects.append(f"http://{host}:{_port(target)}/elsewhere")
        listening = await asyncio.start_server(server.serve, ALLOWED, 0, backlog=1000)
        sys.stdout.write(json.dumps({"url": f"http://{ALLOWED}:{_port(listening)}"}) + "\n")
        sys.stdout.flush()
        await listening.serve_forever()


def _port(server: asyncio.Server) -> int:
    return cast("int", server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1]), json.loads(sys.argv[2])))
