"""Servers on the loopback address that answer as told, for what a proper server would never do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """A server that holds this conversation on each connection; its base URL."""
    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        with suppress(OSError):
            try:
                await talk(reader, writer)
                writer.close()
            except asyncio.CancelledError:  # asyncio of Python 3.11 cannot have a conversation end in this
                writer.transport.abort()
            await writer.wait_closed()
        conversations.discard(task)

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(conversations):
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """One request with its body: head as text, body as bytes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next((line for line in head.lower().split("\r\n") if line.startswith("content-length:")), ":0")
    return head, await reader.readexactly(int(length.partition(":")[2]))


def response(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A response as it travels."""
    lines = [f"HTTP/1.1 {status} Said So", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, the last one for ever; its URL and the heads it got."""
    heads: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head, _ = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            heads.append(head)
            writer.write(answers[min(len(heads), len(answers)) - 1])
            await writer.drain()

    async with serving(talk) as url:
        yield url, heads
