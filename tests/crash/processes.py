"""Processes that tests start, watch and kill: workers and the emulator, as a person would start them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bridge.adapters.brokers

LEASH = Path(bridge.adapters.brokers.__file__).with_name("leash.py")
ROOT = Path(__file__).parents[2]
TAMS_BRIDGE = (sys.executable, "-c", "from bridge.cli import main; main()")

Line = Mapping[str, Any]


class Child:
    """A child process whose output lines are kept, and can be waited for; it does not outlive the tests."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**inherited, **environment},
            cwd=ROOT,
        )
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._has_ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def lines(self) -> Sequence[Line]:
        """What it has said until now; a line that is no JSON object stands under `text`."""
        with self._changed:
            return list(self._lines)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def await_lines(self, enough: Callable[[Sequence[Line]], bool], *, seconds: float, what: str) -> None:
        """Return once its lines are as wanted.

        Raises:
            AssertionError: they are not in time, or it ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: enough(self._lines) or self._has_ended, seconds)
            ended = f", and it has ended with code {self._process.wait()}" if self._has_ended else ""
            assert enough(self._lines), f"no {what} within {seconds} s{ended}; its last lines:\n{self._tail()}"

    def live_for(self, seconds: float) -> None:
        """Let it work for so long.

        Raises:
            AssertionError: it ended by itself.
        """
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(seconds)
            raise AssertionError(f"ended by itself with code {code}; its last lines:\n{self._tail()}")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._end()

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def explain(self) -> None:
        """SIGUSR1, at which a process of `stepped` says what it is waiting for."""
        self._process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        """SIGTERM, without waiting for what it does."""
        self._process.terminate()

    def stop(self, *, seconds: float) -> int:
        """SIGTERM, and its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        self._process.terminate()
        code = self._process.wait(seconds)
        self._end()
        return code

    def _end(self) -> None:
        self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            try:
                document = json.loads(line)
            except ValueError:
                document = None
            said = document if isinstance(document, dict) else {"text": line.decode(errors="replace").rstrip()}
            with self._changed:
                self._lines.append(said)
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _tail(self) -> str:
        return "\n".join(json.dumps(line) for line in self._lines[-25:])


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Child]:
    """Such a process, gone at the end."""
    process = Child(command, environment)
    try:
        yield process
    finally:
        process.kill()


def opened(lines: Sequence[Line], kind: str = "partition") -> set[int]:
    """The partitions a worker works on, by its log; those of a forwarder are of the kind `dispatch partition`."""
    partitions: set[int] = set()
    for line in lines:
        if line.get("event") == f"{kind} opened":
            partitions.add(line["partition"])
        elif line.get("event") in {f"{kind} closed", f"{kind} lost", f"{kind} unavailable"}:
            partitions.discard(line["partition"])
    return partitions


class Emulator:
    """A TAMS that runs in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url).netloc

    def put_settings(self, **settings: object) -> None:
        """Change how it behaves."""
        self._ask("PUT", "settings", settings)

    def add_fault(self, rule: Mapping[str, object]) -> None:
        """Let requests go wrong."""
        self._ask("POST", "faults", rule)

    def clear_faults(self) -> None:
        """Let no more requests go wrong by rule."""
        self._ask("DELETE", "faults")

    def journal(self) -> list[Line]:
        """Every request it got."""
        return [json.loads(line) for line in self._ask("GET", "journal").splitlines()]

    def groups(self, job_ids: Sequence[str]) -> dict[str, str]:
        """The group each job was created in."""
        connection = HTTPConnection(self._address, timeout=10)
        try:
            return {job_id: json.loads(_asked(connection, "GET", f"jobs/{job_id}"))["group"] for job_id in job_ids}
        finally:
            connection.close()

    def await_journal(self, enough: Callable[[Sequence[Line]], bool], *, seconds: float) -> None:
        """Return once its journal is as wanted.

        Raises:
            AssertionError: it is not in time.
        """
        until = time.monotonic() + seconds
        while not enough(journal := self.journal()):
            assert time.monotonic() < until, f"not in the journal within {seconds} s; last: {journal[-5:]}"

    def _ask(self, method: str, path: str, document: object = None) -> bytes:
        connection = HTTPConnection(self._address, timeout=10)
        try:
            return _asked(connection, method, path, document)
        finally:
            connection.close()


def _asked(connection: HTTPConnection, method: str, path: str, document: object = None) -> bytes:
    body = None if document is None else json.dumps(document)
    connection.request(method, f"/_emulator/{path}", body)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, f"{method} {path}: {response.status} {content!r}"
    return content


@contextmanager
def emulator(**settings: object) -> Iterator[Emulator]:
    """An emulator without a limit of requests, unless the settings have one."""
    chosen = {"rate": 0, "created_s": 0, "pending_s": 0, "queue_s": 0.1, **settings}
    switches = [word for name, value in chosen.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    with child([sys.executable, "-m", "bridge.emulator", *switches], {}) as process:
        process.await_lines(lambda lines: any("url" in line for line in lines), seconds=20, what="address")
        yield Emulator(next(line["url"] for line in process.lines if "url" in line))
