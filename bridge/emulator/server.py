"""The emulator on a socket."""

import asyncio
from collections.abc import Callable

from bridge.emulator.admin import ADMIN_PATH, Admin
from bridge.emulator.api import Api
from bridge.emulator.clock import Clock
from bridge.emulator.connection import Connection
from bridge.emulator.settings import EmulatorSettings
from bridge.emulator.wire import Answer, Request


async def serve(
    settings: EmulatorSettings,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled.

    `ready` is called once with the base URL, in which port 0 has become a real one. No signal handlers are installed.
    Open connections are cut at the end. Raises `OSError` if the address is taken or a file of the settings cannot be
    opened, `ValueError` if a public key cannot be read.
    """
    clock = clock or Clock(settings.speed)
    api = Api(settings, clock)
    admin = Admin(api)
    connections: set[Connection] = set()

    def answer(request: Request) -> Answer:
        is_admin = request.target.startswith(ADMIN_PATH.encode())
        return admin.answer(request) if is_admin else api.answer(request)

    def connect() -> Connection:
        return Connection(answer, lambda: api.settings.max_body_bytes, clock, connections)

    try:
        server = await asyncio.get_running_loop().create_server(connect, host, port, backlog=1024)
        if ready:
            ready(_url(host, server))
        try:
            await (stop or asyncio.Event()).wait()
        finally:
            server.close()
            for connection in list(connections):
                connection.abort()
    finally:
        api.journal.close()


def _url(host: str, server: asyncio.Server) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{server.sockets[0].getsockname()[1]}"
