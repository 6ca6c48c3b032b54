"""A bridge under test: the broker of the session, an emulator that can be stopped and started, workers, a bystander.

Workers run in this process, where that shows enough, or as the command does, where signals and output matter.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.topics import Topics
from bridge.emulator import EmulatorSettings, serve
from bridge.messages import JobEvent
from bridge.runtime import RoleName, build_process
from bridge.settings import Settings, read_settings
from bridge.shell import Process, Shell
from tests.adapters.topics import Headers, Record

KEY = "integration-key-5f1c"
"""What must never be found in a log or a topic."""

PATIENCE_S = 40.0
COMMAND = (sys.executable, "-c", "from bridge.cli import main; main()")

QUICK: Mapping[str, Mapping[str, object]] = {
    "kafka": {
        "connect_timeout_s": 20,
        "session_timeout_s": 10,
        "heartbeat_interval_s": 0.5,
        "rebalance_timeout_s": 10,
        "request_timeout_s": 5,
        "transaction_timeout_s": 10,
    },
    "topics": {"partitions": 2},
    "tams": {"api_key": KEY, "rate": 0, "timeout_s": 5},
    "jobs": {"retry_pause_s": 0.1, "resubmit_pause_s": 0.1},
    "poll": {"interval_s": 0.05},
    "http": {"port": 0},
}
"""Settings that differ from a user's so that tests need not wait."""


def graph(**script: object) -> dict[str, object]:
    """A graph whose job has this fate at the emulator."""
    return {
        "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20}},
        "9": {"classType": "SaveImage", "inputs": {"images": ["3", 0]}},
        "s": {"classType": "EmulatorScript", "inputs": script},
    }


def job_of(event: JobEvent) -> dict[str, Any]:
    """The TAMS job in an event."""
    return msgspec.json.decode(event.job, type=dict[str, Any])


def quick_settings(servers: str, prefix: str, tams_url: str, **sections: Mapping[str, object]) -> Settings:
    """The settings of a bridge that nobody else has."""
    given: dict[str, dict[str, object]] = {name: dict(section) for name, section in QUICK.items()}
    given["kafka"]["bootstrap_servers"] = servers
    given["topics"]["prefix"] = prefix
    given["tams"]["base_url"] = tams_url
    given["worker"] = {"group": f"{prefix}.worker"}
    given["forwarder"] = {"group": f"{prefix}.forwarder"}
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return read_settings(**given)


class Emulator:
    """A TAMS that may go down and come back, on the same port and without its memory."""

    def __init__(self, **settings: Any) -> None:
        self._settings = EmulatorSettings.model_validate(
            {"rate": 0, "speed": 20, "queue_s": 1, "run_s": 2, "strangers": 1, "bearer_keys": {KEY: "app"}, **settings}
        )
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from now on."""
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._serving = asyncio.create_task(serve(self._settings, port=self.port, ready=ready.set_result))
        await ready

    async def stop(self) -> None:
        """Cut every connection and listen no more."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def admin(self, method: str, path: str, body: object = None) -> str:
        """Ask the admin API."""
        async with httpx.AsyncClient() as client:
            answer = await client.request(method, f"{self.url}/_emulator/{path}", content=msgspec.json.encode(body))
        assert answer.status_code == 200, answer.text
        return answer.text

    async def change(self, **settings: object) -> None:
        """Behave otherwise from now on."""
        await self.admin("PUT", "settings", settings)

    async def journal(self, method: str = "") -> list[dict[str, Any]]:
        """The requests it got to `/v1/jobs`, perhaps only those of one method."""
        entries = [json.loads(line) for line in (await self.admin("GET", "journal")).splitlines()]
        return [entry for entry in entries if entry["path"].startswith("/v1/") and method in {"", entry["method"]}]


@dataclass(slots=True)
class Bystander:
    """Reads all result and dead-letter topics as any application would, and publishes requests."""

    settings: Settings
    consumer: AIOKafkaConsumer
    producer: AIOKafkaProducer
    events: list[JobEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    parked: list[Record] = field(default_factory=list)

    async def publish(
        self,
        value: object,
        *,
        key: str | bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Write a record; its partition and offset."""
        raw = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        sent = await self.producer.send_and_wait(
            f"{self.settings.topics.prefix}.requests",
            raw,
            key=key.encode() if isinstance(key, str) else key,
            headers=list(headers),
            partition=partition,
        )
        return sent.partition, sent.offset

    async def request(self, request_id: str, fields: Mapping[str, object] | None = None, **script: object) -> None:
        """Publish a request for a job with this fate."""
        await self.publish({"params": graph(**script), **(fields or {})}, key=request_id)

    async def cancel(self, request_id: str) -> None:
        """Publish a cancel."""
        await self.publish({"cancel": request_id}, key=request_id)

    def types(self, request_id: str) -> list[str]:
        """The last words of the types of a request's events so far."""
        return [event.type.rpartition(".")[2] for event in self.events if event.request_id == request_id]

    def end(self, request_id: str) -> JobEvent | None:
        """The terminal event of a request, if it has come."""
        ends = [event for event in self.events if event.request_id == request_id and event.type.is_terminal]
        assert len(ends) <= 1, f"{request_id} ended twice"
        return ends[0] if ends else None

    async def until(self, enough: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
        """Read until it is so."""
        try:
            async with asyncio.timeout(seconds):
                while not enough():
                    await self._read()
        except TimeoutError:
            told = {event.request_id: self.types(event.request_id) for event in self.events}
            message = f"not within {seconds} s; so far {told}, {len(self.parked)} parked"
            raise AssertionError(message) from None

    async def ended(self, *request_ids: str, seconds: float = PATIENCE_S) -> list[JobEvent]:
        """Wait for the terminal events of these requests."""
        await self.until(lambda: all(self.end(request_id) for request_id in request_ids), seconds=seconds)
        return [end for request_id in request_ids if (end := self.end(request_id))]

    async def letter(self, where: tuple[int, int]) -> Record:
        """Wait until the request at this partition and offset has been parked."""

        def found() -> list[Record]:
            place = {"dlq-partition": str(where[0]).encode(), "dlq-offset": str(where[1]).encode()}
            return [record for record in self.parked if place.items() <= dict(record.headers).items()]

        await self.until(lambda: bool(found()))
        return found()[0]

    def assert_whole(self) -> None:
        """Every request's events are numbered without gap or repeat."""
        for request_id in {event.request_id for event in self.events}:
            sequences = [event.sequence for event in self.events if event.request_id == request_id]
            assert sorted(sequences) == list(range(1, len(sequences) + 1)), (request_id, sequences)

    async def _read(self) -> None:
        for batch in (await self.consumer.getmany(timeout_ms=100)).values():
            for record in batch:
                self.records.append(record)
                if record.topic.endswith(".dead-letter"):
                    self.parked.append(record)
                else:
                    assert record.value is not None
                    self.events.append(msgspec.json.decode(record.value, type=JobEvent))


@asynccontextmanager
async def bystander(settings: Settings) -> AsyncIterator[Bystander]:
    """Whoever uses the bridge, without its code."""
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    servers = settings.kafka.bootstrap_servers
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=20_000_000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=20_000_000, linger_ms=0)
    await consumer.start()
    await producer.start()
    try:
        names = [*topics.names.results, topics.names.dead_letter]
        consumer.assign([TopicPartition(name, p) for name in names for p in range(settings.topics.partitions)])
        yield Bystander(settings, consumer, producer)
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), 5)
        with suppress(TimeoutError):
            await asyncio.wait_for(consumer.stop(), 5)


@dataclass(frozen=True, slots=True)
class WorkerHere:
    """A worker in this process."""

    shell: Shell
    process: Process
    running: asyncio.Task[None]

    async def stop(self) -> None:
        """End it as a signal would."""
        self.shell._stop.set()
        await asyncio.wait_for(self.running, 20)


@asynccontextmanager
async def worker_here(settings: Settings, *roles: RoleName) -> AsyncIterator[WorkerHere]:
    """A worker, or other roles, in this process, stopped at the end if it was not before."""
    async with AsyncExitStack() as stack:
        process = await build_process(settings, roles or ("worker",), stack)
        shell = Shell(settings, process)
        running = asyncio.create_task(shell.run(lambda: None))
        worker = WorkerHere(shell, process, running)
        try:
            yield worker
        finally:
            if not running.done():
                await worker.stop()
        await running


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """The command `tams-bridge worker`, or that of another role."""

    process: asyncio.subprocess.Process
    log: Path
    http_port: int

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def complaints(self) -> list[dict[str, Any]]:
        """Its warnings and errors, those aside with which aiokafka comments its own reconnecting."""
        loud = [line for line in self.lines() if line["level"] in {"warning", "error", "critical"}]
        return [line for line in loud if not line["logger"].startswith("aiokafka")]

    async def terminate(self) -> int:
        """Send SIGTERM and wait for the end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)

    async def health(self) -> tuple[int, dict[str, Any]]:
        """What `/health/ready` says; 0 while nothing answers."""
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = await client.get(f"http://127.0.0.1:{self.http_port}/health/ready")
        except httpx.TransportError:
            return 0, {}
        return answer.status_code, answer.json()

    async def metrics(self) -> str:
        """What `/metrics` says."""
        async with httpx.AsyncClient(timeout=5) as client:
            return (await client.get(f"http://127.0.0.1:{self.http_port}/metrics")).text

    async def until_health(self, enough: Callable[[int, dict[str, Any]], bool], *, seconds: float = 20) -> None:
        """Wait until health says so."""
        async with asyncio.timeout(seconds):
            while not enough(*await self.health()):
                assert self.process.returncode is None, self.log.read_text()
                await SystemClock().wait(asyncio.Event(), 0.1)


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that make a command use these settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    shown = settings.model_dump(mode="json", exclude_unset=True)
    shown["tams"]["api_key"] = settings.tams.api_key.get_secret_value() if settings.tams.api_key else ""
    if settings.webhooks.encryption_keys:
        shown["webhooks"]["encryption_keys"] = [key.get_secret_value() for key in settings.webhooks.encryption_keys]
    for section, fields in shown.items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if value is not None:
                written = json.dumps(value) if isinstance(value, dict | list) else str(value)
                environment[f"BRIDGE_{section.upper()}__{name.upper()}"] = written
    return environment


@asynccontextmanager
async def worker_process(
    settings: Settings, directory: Path, *, name: str = "worker", role: RoleName = "worker"
) -> AsyncIterator[WorkerProcess]:
    """The command, killed at the end if it still runs; its output is in a file."""
    port = free_ports(1)[0]
    log = directory / f"{name}.log"
    environment = {**as_environment(settings), "BRIDGE_HTTP__PORT": str(port), "BRIDGE_LOG__LEVEL": "debug"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, role, env=environment, stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL
        )
    worker = WorkerProcess(process, log, port)
    try:
        await worker.until_health(lambda status, body: status != 0 and body[role]["partitions"]["open"] > 0, seconds=40)
        yield worker
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
