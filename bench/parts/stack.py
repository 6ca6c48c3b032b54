"""A broker, an emulator and whatever is measured, each in a process of its own."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

import psutil

from bridge.adapters.brokers import apache_broker, embedded_broker
from bridge.adapters.kafka.topics import Topics
from bridge.settings import Settings

ROOT = Path(__file__).parents[2]
BRIDGE = (sys.executable, "-c", "from bridge.cli import main; main()", "worker")
FORWARDER = (*BRIDGE[:-1], "forwarder")
PLAIN = (sys.executable, "-m", "bench.parts.plain")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used up to now."""

    cpu_s: float
    resident_mb: float
    peak_mb: float


class Measured:
    """A process under measurement, with the file its log goes to."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        self._log = Path(log.name)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        self._process = subprocess.Popen(command, stderr=log, cwd=ROOT, env={**inherited, **environment})
        self._watched = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def usage(self) -> Usage:
        """What it has used."""
        times = self._watched.cpu_times()
        status = Path(f"/proc/{self._process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peak = next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), float("nan"))
        return Usage(times.user + times.system, self._watched.memory_info().rss / 1e6, peak)

    def await_partitions(self, count: int, *, seconds: float) -> None:
        """Return once its log says that it works on so many partitions."""
        until = time.perf_counter() + seconds
        while (said := self._log.read_text()).count("partition opened") < count:
            assert self._process.poll() is None, f"it has ended:\n{said[-2000:]}"
            assert time.perf_counter() < until, f"not ready within {seconds} s:\n{said[-2000:]}"
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged until now; the last line may still be under way, and is left out then."""
        whole = self._log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def measured(command: Sequence[str], settings: Settings) -> Iterator[Measured]:
    """Run a process under these settings."""
    environment = {
        f"BRIDGE_{section.upper()}__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for section, values in settings.model_dump(mode="json", exclude_unset=True, exclude_none=True).items()
        for name, value in (values.items() if isinstance(values, dict) else ())
    }
    keys = [key.get_secret_value() for key in settings.webhooks.encryption_keys]
    environment["BRIDGE_WEBHOOKS__ENCRYPTION_KEYS"] = json.dumps(keys)  # masked in the dump
    environment["BRIDGE_TAMS__API_KEY"] = "emulator-key"  # as above
    with tempfile.NamedTemporaryFile() as log:
        process = Measured(command, environment, log)
        try:
            yield process
        finally:
            process.stop()


@contextmanager
def broker(kind: str) -> Iterator[str]:
    """Bootstrap servers of a fresh broker (`apache`, `embedded`), or of one that runs (`HOST:PORT`)."""
    if ":" in kind:
        yield kind
        return
    with asyncio.Runner() as runner:
        context = apache_broker() if kind == "apache" else embedded_broker()
        process = runner.run(context.__aenter__())
        try:
            yield process.bootstrap_servers
        finally:
            runner.run(context.__aexit__(None, None, None))


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator that runs."""

    url: str

    def looks(self) -> int:
        """How many looks at jobs it has answered."""
        return sum(self._stats()["answers"].get("GET /v1/jobs/{id}", {}).values())

    def journal(self, after: int = 0) -> list[dict[str, Any]]:
        """The requests it got, from the one after this number on."""
        with urlopen(f"{self.url}/_emulator/journal?after={after}") as answer:  # noqa: S310 -- as below
            return [json.loads(line) for line in answer.read().splitlines()]

    def jobs(self) -> int:
        """How many jobs it has made."""
        return sum(self._stats()["jobs"].values())

    def _stats(self) -> dict[str, Any]:
        with urlopen(f"{self.url}/_emulator/stats") as answer:  # noqa: S310 -- one this bench has started
            stats: dict[str, Any] = json.load(answer)
            return stats


@contextmanager
def emulator(**settings: object) -> Iterator[Emulator]:
    """An emulator without a limit of requests, whose jobs run at once."""
    chosen = {"rate": 0, "created_s": 0, "pending_s": 0, "queue_s": 0, "strangers": 0, **settings}
    switches = [word for name, value in chosen.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "bridge.emulator", *switches]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield Emulator(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


def settings_for(servers: str, emulated: Emulator | None, **sections: Mapping[str, object]) -> Settings:
    """Settings of a bridge with topics of its own, which are created; `sections` come on top."""
    prefix = f"bench-{secrets.token_hex(4)}"
    merged: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap_servers": servers},
        "topics": {"prefix": prefix},
        "worker": {"group": f"{prefix}.worker"},
        "tams": {"base_url": emulated.url if emulated else "http://127.0.0.1:9", "rate": 0, "concurrency": 64},
        "http": {"port": 0},
        "log": {"format": "json", "level": "info"},
    }
    for name, values in sections.items():
        merged[name] = {**merged.get(name, {}), **values}
    settings = Settings.model_validate(merged)
    asyncio.run(Topics(settings.kafka, settings.topics).create())
    return settings
