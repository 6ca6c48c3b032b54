"""The HTTP API of TAMS: who asks, how often, for what, and what goes wrong on the way.

A request passes size, route, authentication, rate limit, fault by rule, fault by script. What stops it is a `Refusal`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from sys import intern

import msgspec

from bridge.emulator.authentication import Authenticator
from bridge.emulator.chance import mark
from bridge.emulator.clock import Clock
from bridge.emulator.documents import OUTPUTS_PATH, View, output_picture, url_is_valid
from bridge.emulator.faults import Fault, FaultRules
from bridge.emulator.graph import field as request_field
from bridge.emulator.graph import read_graph
from bridge.emulator.jobs import Job, Order
from bridge.emulator.journal import API_PATH, Entry, Journal
from bridge.emulator.rate import RateLimit
from bridge.emulator.script import nth, read_script
from bridge.emulator.settings import EmulatorSettings
from bridge.emulator.tams import Tams
from bridge.emulator.wire import (
    Answer,
    JsonObject,
    Refusal,
    Request,
    RpcCode,
    invalid_argument,
    json_answer,
    not_found,
    read_json_object,
    rpc_status,
)


@dataclass(slots=True)
class Exchange:
    """A request under way, with what the journal wants to know about it."""

    request: Request
    now: float
    path: str
    route: str = "unknown"
    app: str = ""
    request_id: str = ""
    job_id: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def last_segment(self) -> str:
        """What follows the last slash of the path."""
        return self.path.rpartition("/")[2]


class Api:
    """Answers requests as TAMS does, by the clock and the settings."""

    def __init__(self, settings: EmulatorSettings, clock: Clock) -> None:
        """Start without jobs; raise `ValueError` or `OSError` if a key or the journal's file cannot be used."""
        self.settings = settings
        self.clock = clock
        self.rules = FaultRules()
        self.tams = Tams(settings, clock.now())
        self.journal = Journal(settings.journal_entries, settings.journal_file)
        self._authenticator = Authenticator(settings)
        self._rate_limit = RateLimit()
        self._routes: dict[tuple[str, str], Callable[[Exchange], Answer]] = {
            ("POST", "/v1/jobs/workflow"): self._create,
            ("POST", "/v1/jobs/workflow/params/check"): self._check,
            ("GET", "/v1/jobs/{id}"): self._read,
            ("DELETE", "/v1/jobs/{id}"): self._cancel,
            ("GET", f"{OUTPUTS_PATH}{{id}}"): self._output,
            ("HEAD", f"{OUTPUTS_PATH}{{id}}"): self._output,
        }

    def use(self, settings: EmulatorSettings) -> None:
        """Follow other settings; raise `ValueError` or `OSError`, and change nothing, if a key is unusable."""
        self._authenticator.use(settings)
        self.clock.run_at(settings.speed)
        self.tams.use(settings, self.clock.now())
        self.settings = settings

    def answer(self, request: Request) -> Answer:
        """Answer a request, and write both down in the journal."""
        exchange = Exchange(request, self.clock.now(), request.path)
        answer = _refused_or_done(lambda: self._admit(exchange))
        self.journal.add(
            Entry(
                number=self.journal.total + 1,
                emulated_at=exchange.now,
                real_at=self.clock.real_now(),
                method=request.method,
                path=intern(exchange.path),
                route=exchange.route,
                request_id=exchange.request_id,
                job_id=exchange.job_id,
                status=0 if answer.cut else answer.status,
                fault=" + ".join(exchange.faults),
                app=exchange.app,
            )
        )
        return answer

    def _admit(self, exchange: Exchange) -> Answer:
        request, path = exchange.request, exchange.path
        if request.too_long:
            raise Refusal(413, rpc_status(RpcCode.INVALID_ARGUMENT, "request body too large"))
        pattern = path if (request.method, path) in self._routes else f"{path.rpartition('/')[0]}/{{id}}"
        handler = self._routes.get((request.method, pattern))
        if handler is None:
            raise not_found("route")
        exchange.route = f"{request.method} {pattern}"
        if path.startswith(API_PATH):
            self._authenticate(exchange)
        return self._befall(exchange, self.rules.take(request.method, path), lambda: handler(exchange))

    def _authenticate(self, exchange: Exchange) -> None:
        caller = self._authenticator.authenticate(exchange.request, self.clock.real_now())
        exchange.app = caller.app
        scope = caller.app if self.settings.rate_scope == "app" else caller.key
        wait = self._rate_limit.wait(scope, self.settings.rate, exchange.now)
        if wait:
            headers = {"Retry-After": str(ceil(wait))} if self.settings.retry_after else {}
            raise Refusal(429, rpc_status(RpcCode.RESOURCE_EXHAUSTED, "too many requests"), headers)

    @staticmethod
    def _befall(exchange: Exchange, fault: Fault | None, action: Callable[[], Answer]) -> Answer:
        if fault is None:
            return action()
        exchange.faults.append(fault.label)
        return fault.carry_out(lambda: _refused_or_done(action))

    def _create(self, exchange: Exchange) -> Answer:
        order = self._order(exchange)
        return self._befall(exchange, self.tams.next_create_fault(order), lambda: self._created(exchange, order))

    def _created(self, exchange: Exchange, order: Order) -> Answer:
        job = self.tams.create(order, exchange.now)
        exchange.job_id = job.id
        return self._job_answer(exchange, job)

    def _check(self, exchange: Exchange) -> Answer:
        order = self._order(exchange)
        return json_answer(
            {"valid": True, "credits": self.tams.price(order)}, write_defaults=self.settings.write_defaults
        )

    def _read(self, exchange: Exchange) -> Answer:
        job = self._job(exchange)
        job.gets += 1
        fault = nth(job.order.script.http.get, job.gets - 1)
        return self._befall(exchange, fault, lambda: self._job_answer(exchange, job))

    def _cancel(self, exchange: Exchange) -> Answer:
        job = self._job(exchange)
        job.deletes += 1
        fault = nth(job.order.script.http.delete, job.deletes - 1)
        return self._befall(exchange, fault, lambda: self._canceled(exchange, job))

    def _canceled(self, exchange: Exchange, job: Job) -> Answer:
        self.tams.cancel(job, exchange.now)
        return json_answer({"jobId": job.id})

    def _output(self, exchange: Exchange) -> Answer:
        if not url_is_valid(exchange.path, exchange.request.query, exchange.now, self.settings):
            raise Refusal(403, rpc_status(RpcCode.PERMISSION_DENIED, "invalid or expired auth_key"))
        exchange.job_id, _, number = exchange.last_segment.partition(".")[0].partition("_")
        picture = output_picture(self.tams.job(exchange.job_id, exchange.now), int(number))
        return Answer(body=picture, content_type=picture.media_type)

    def _order(self, exchange: Exchange) -> Order:
        document = read_json_object(exchange.request.body)
        exchange.request_id = _text(document, "requestId", "request_id")
        notify_url = _text(document, "runningNotifyUrl", "running_notify_url")
        params = document.get("params")
        graph = read_graph(params)
        script = read_script(graph)
        return Order(
            app=exchange.app,
            request_id=exchange.request_id,
            graph=graph,
            script=script,
            group=script.group or exchange.request_id or mark(msgspec.json.encode(params)),
            notify_url=notify_url if self.settings.running_notify_url == "recorded" else "",
        )

    def _job(self, exchange: Exchange) -> Job:
        exchange.job_id = exchange.last_segment
        job = self.tams.job(exchange.job_id, exchange.now)
        exchange.job_id = job.id
        exchange.request_id = job.order.request_id
        return job

    def _job_answer(self, exchange: Exchange, job: Job) -> Answer:
        base_url = self.settings.public_url or f"http://{exchange.request.header(b'host')}"
        document = View(exchange.now, self.settings, base_url.rstrip("/")).job(job)
        return json_answer({"job": document}, write_defaults=self.settings.write_defaults)


def _refused_or_done(action: Callable[[], Answer]) -> Answer:
    try:
        return action()
    except Refusal as refusal:
        return refusal.answer


def _text(document: JsonObject, camel: str, snake: str) -> str:
    value = request_field(document, camel, snake)
    if value is None or isinstance(value, str):
        return value or ""
    raise invalid_argument(f"{camel}: string expected", field_name=camel)
