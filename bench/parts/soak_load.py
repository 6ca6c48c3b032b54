"""Steady load for as long as is wanted: requests by topic and by API, and people who look at the API."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from threading import Event, Thread

from bench.parts.load import GRAPH, Requests, Terminals

BY_API_EVERY_S = 1.0
READ_EVERY_S = 0.1
FOLLOW_S = 2.0
TIMEOUT_S = 30.0
LISTS = (
    "/v1/jobs?limit=50",
    "/v1/jobs?state=success&limit=20",
    "/v1/endpoints",
    "/v1/deliveries?limit=50",
    "/v1/attempts?limit=50",
    "/metrics",
    "/health/ready",
)


class Work:
    """Something that is done again and again in a thread of its own; the first error is told by `check`.

    Args:
        turn: does it once.
        every_s: from one beginning to the next.
    """

    def __init__(self, turn: Callable[[int], None], *, every_s: float) -> None:
        self._turn = turn
        self._every_s = every_s
        self._stop = Event()
        self._error: Exception | None = None
        self.turns = 0
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Return once it is not done any more."""
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        began = time.perf_counter()
        while not self._stop.wait(max(0.0, began + self.turns * self._every_s - time.perf_counter())):
            try:
                self._turn(self.turns)
            except Exception as error:  # noqa: BLE001  told to who asks
                self._error = error
                return
            self.turns += 1


class Jobs:
    """Publishes requests steadily and knows how long each took, beside the time at TAMS.

    Args:
        requests: publishes.
        terminals: sees the ends.
        per_second: of requests.
        job_s: how long each runs at TAMS.
    """

    def __init__(self, requests: Requests, terminals: Terminals, *, per_second: float, job_s: float) -> None:
        self._terminals = terminals
        self._job_s = job_s
        self._sent: dict[str, float] = {}

        def publish(turn: int) -> None:
            self._sent.update(requests.publish(f"soak-{turn}", 1))

        self.work = Work(publish, every_s=1 / per_second)

    def ended(self) -> list[float]:
        """Of the jobs that have ended since the last call: milliseconds from request to event, less their own time."""
        seen = self._terminals.seen
        ended = [name for name in list(self._sent) if name in seen]
        return [(seen.pop(name) - self._sent.pop(name) - self._job_s) * 1e3 for name in ended]


class Visitors:
    """People at the API: one submits, one reads lists on one connection, one a job on ever new ones, one follows.

    Args:
        port: of the API.
        key: with all scopes.
    """

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"authorization": f"Bearer {key}"}
        self._kept = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self.works: Sequence[Work] = (
            Work(self._submit, every_s=BY_API_EVERY_S),
            Work(self._read_a_list, every_s=READ_EVERY_S),
            Work(self._read_a_job, every_s=READ_EVERY_S),
            Work(self._follow, every_s=FOLLOW_S),
        )

    def get(self, path: str) -> bytes:
        """The answer to a GET on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            return _asked(connection, "GET", path, self._headers)
        finally:
            connection.close()

    def _submit(self, turn: int) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            document = {"request_id": f"api-{turn}", "params": GRAPH}
            _asked(connection, "POST", "/v1/jobs", {**self._headers, "content-type": "application/json"}, document)
        finally:
            connection.close()

    def _read_a_list(self, turn: int) -> None:
        _asked(self._kept, "GET", LISTS[turn % len(LISTS)], self._headers)

    def _read_a_job(self, turn: int) -> None:
        del turn
        jobs = json.loads(self.get("/v1/jobs?limit=1"))["data"]
        if jobs:
            with suppress(AssertionError):  # it may have been forgotten meanwhile
                self.get(f"/v1/jobs/{jobs[0]['request_id']}")

    def _follow(self, turn: int) -> None:
        """Follow for a while, and go without a word."""
        del turn
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/v1/events", headers=self._headers)
            stream, until = connection.getresponse(), time.perf_counter() + FOLLOW_S / 2
            while time.perf_counter() < until:
                assert stream.readline(), "the event stream broke off"
        finally:
            connection.close()


def await_ready(port: int, *, seconds: float) -> None:
    """Return once a process says on this port that it is ready."""
    until = time.perf_counter() + seconds
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with suppress(OSError, HTTPException, AssertionError):
            _asked(connection, "GET", "/health/ready", {})
            return
        assert time.perf_counter() < until, f"port {port}: not ready within {seconds} s"
        time.sleep(0.1)


def median(values: Sequence[float]) -> float:
    """Their median; not a number if there are none."""
    return statistics.median(values) if values else float("nan")


def _asked(
    connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str], document: object = None
) -> bytes:
    connection.request(method, path, None if document is None else json.dumps(document), dict(headers))
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status < 300, f"{method} {path}: {answer.status} {content[:300]!r}"
    return content
