"""A process: which parts run side by side, what stops them, in which order they end, and what it serves over HTTP.

A process is a FastStream application: its lifespan starts and stops our tasks, its broker tells whether Kafka answers,
its ASGI side serves health and metrics. The partition owners use aiokafka directly (docs/decisions).
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import msgspec
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, generate_latest
from typing_extensions import override

from bridge.adapters.kafka.connection import broker_security
from bridge.errors import CannotStart
from bridge.settings import HttpSettings, Settings

_PING_S = 3.0
_LAST_TIME_S = 1.0
"""What even the last parts to stop are given."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs for as long as the process.

    Args:
        name: for the log.
        run: works until stopped; whatever it raises ends the process.
        stop: asks it to end.
    """

    name: str
    run: Callable[[], Coroutine[None, None, None]]
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What a process is made of.

    Args:
        stages: its parts; those of the first stage end before those of the next are asked to.
        problems: what keeps it from its work, in words that tell what to do.
        state: figures for the health page.
        metrics: exported under `/metrics`.
        api: serves every path but health and metrics; None for nothing.
    """

    stages: Sequence[Sequence[Part]]
    problems: Callable[[], list[str]]
    state: Callable[[], Mapping[str, object]]
    metrics: CollectorRegistry
    api: ASGIApp | None = None


class Shell:
    """The FastStream application around a process: lifespan, signals, health, metrics.

    Args:
        settings: in force.
        process: what runs.
        stop: ends it when set, as a signal does.
    """

    def __init__(self, settings: Settings, process: Process, *, stop: asyncio.Event | None = None) -> None:
        self._settings = settings
        self._process = process
        self._broker = KafkaBroker(
            [server.strip() for server in settings.kafka.bootstrap_servers.split(",")],  # it takes a text as one server
            client_id=settings.kafka.client_id,
            security=broker_security(settings.kafka),
            graceful_timeout=_PING_S,
            logger=None,
        )
        self._stop = stop or asyncio.Event()
        self.app = AsgiFastStream(
            self._broker,
            logger=None,
            lifespan=self._lifespan,
            asgi_routes=[
                ("/health/live", get(self._live)),
                ("/health/ready", get(self._ready)),
                ("/metrics", get(self._metrics)),
            ],
        )
        self._work: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal comes or the work ends; raises what ended it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        http = self._settings.http
        if http.port:
            await self._serve(http, ready)
        else:
            async with self.app.start_lifespan_context({}):
                ready()
                await self._stop.wait()
        if self._work is not None:
            await self._work

    async def _serve(self, http: HttpSettings, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            self._routed,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="on",
            limit_concurrency=http.max_connections + 1,  # it counts the one that it asks about
            timeout_graceful_shutdown=1,  # event streams never end by themselves
        )
        server = _QuietServer(config)
        with _listener(http.host, http.port) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            stopping = asyncio.create_task(self._stop.wait())
            ready()
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if serving.done() and not self._stop.is_set():
                message = "http: the server could not start: see the log above"
                raise CannotStart(message)
            server.should_exit = True
            await serving

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything but our own paths is the API's, if this process has one."""
        ours = scope["type"] == "lifespan" or scope["path"].startswith(("/health/", "/metrics"))
        app: ASGIApp = self.app if ours or self._process.api is None else self._process.api
        await app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        self._work = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.wait([self._work])

    async def _supervise(self) -> None:
        """Run all parts; when one ends, the others finish their work, stage by stage."""
        running = [
            [asyncio.create_task(part.run(), name=part.name) for part in stage] for stage in self._process.stages
        ]
        tasks = [task for stage in running for task in stage]
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.closing_time_s
        for parts, stage in zip(self._process.stages, running, strict=True):
            for part in parts:
                part.stop()
            if stage:
                await asyncio.wait(stage, timeout=max(_LAST_TIME_S, until - clock()))
        stopping.cancel()
        self._stop.set()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _live(self, scope: Scope) -> AsgiResponse:
        """The process runs and its work has not ended."""
        del scope
        alive = self._work is not None and not self._work.done()
        return _json({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    async def _ready(self, scope: Scope) -> AsgiResponse:
        """The work goes on; if not, why, and what an operator can do."""
        del scope
        has_broker = await self._broker.ping(_PING_S)
        problems = self._process.problems()  # asked for together with the figures below, so that the two agree
        if not has_broker:
            problems.append("kafka: no broker answers")
        body = {"status": "problem" if problems else "ok", "problems": problems, **self._process.state()}
        return _json(body, 503 if problems else 200)

    async def _metrics(self, scope: Scope) -> AsgiResponse:
        """Metrics in Prometheus' text format."""
        del scope
        return AsgiResponse(generate_latest(self._process.metrics), 200, {"content-type": "text/plain; version=0.0.4"})


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: ours end the work first."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(host: str, port: int) -> socket.socket:
    try:
        made = socket.create_server((host, port), reuse_port=False)
        # Told its protocol, as asyncio sends small answers at once only on sockets that say they are TCP.
        return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"http: cannot listen on {host}:{port}: {reason} (set BRIDGE_HTTP__PORT, 0 for none)"
        raise CannotStart(message) from None


def _json(body: object, status: int) -> AsgiResponse:
    return AsgiResponse(msgspec.json.encode(body), status, {"content-type": "application/json"})
