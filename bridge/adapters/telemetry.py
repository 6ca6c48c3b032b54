"""Logs and metrics: the names, in one place each, and who writes them.

The log goes to standard error, one event a line. Standard output belongs to what a command answers.
"""

import logging
import sys
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from typing_extensions import override

from bridge.messages import (
    Ambiguous,
    Answer,
    Done,
    InHand,
    Missing,
    NotSent,
    Refused,
    Seen,
    TryLater,
    Unauthorized,
)
from bridge.ports import Changes
from bridge.settings import LogSettings
from bridge.webhook_messages import After, Attempt, Notice, NoticeType
from bridge.webhook_ports import DispatchChanges

OUTCOMES: dict[type[Answer], str] = {
    Seen: "seen",
    InHand: "in_hand",
    Done: "done",
    Refused: "refused",
    Missing: "missing",
    TryLater: "try_later",
    Unauthorized: "unauthorized",
    NotSent: "not_sent",
    Ambiguous: "ambiguous",
}
"""How a call to TAMS ended, as the label `outcome`."""

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DELAY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600, 86400)
_MINUTE_S = 60.0
_COMMIT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 20)

_log = structlog.get_logger("worker")


def configure_logging(settings: LogSettings, *, file: Path | None = None) -> None:
    """Set up the log of this process; libraries are heard from `warning` on, under the same format.

    Args:
        settings: level and format.
        file: where it goes instead of standard error.
    """
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if file is None else logging.FileHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for library in ("aiokafka", "faststream", "uvicorn", "asyncio", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    handler.addFilter(_RepeatsOf("aiokafka"))


class _RepeatsOf(logging.Filter):
    """Lets the same message of one library through once a minute: aiokafka repeats its troubles many times a second."""

    def __init__(self, library: str) -> None:
        super().__init__()
        self._library = library
        self._last: dict[tuple[str, str], float] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != self._library:
            return True
        key = (record.name, str(record.msg))
        if record.created - self._last.get(key, float("-inf")) < _MINUTE_S:
            return False
        self._last[key] = record.created
        return True


class WorkerTelemetry:
    """Implements `bridge.ports.Telemetry`.

    Args:
        registry: where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histogram(
            "tams_bridge_tams_call_seconds",
            "Calls to TAMS, from sending to the whole answer.",
            ("call", "outcome"),
            registry=registry,
            buckets=_CALL_BUCKETS,
        )
        self._commits = Histogram(
            "tams_bridge_ledger_commit_seconds",
            "Ledger transactions that were committed.",
            registry=registry,
            buckets=_COMMIT_BUCKETS,
        )
        self._events = Counter(
            "tams_bridge_job_events",
            "Job events published, by the last word of their type.",
            ("type",),
            registry=registry,
        )
        self._parked = Counter(
            "tams_bridge_dead_letters", "Records parked on the dead-letter topic.", ("reason",), registry=registry
        )
        self._owned = Gauge("tams_bridge_partitions_open", "Partitions this process works on.", registry=registry)
        self._lost = Counter(
            "tams_bridge_partitions_lost", "Partitions that closed other than by plan.", ("state",), registry=registry
        )

    def called(self, call: str, request_id: str, answer: Answer, seconds: float) -> None:
        """See the port."""
        outcome = OUTCOMES[type(answer)]
        self._calls.labels(call, outcome).observe(seconds)
        match answer:
            case Seen(view):
                _log.debug(
                    "tams call",
                    call=call,
                    request_id=request_id,
                    outcome=outcome,
                    status=view.status,
                    job_id=view.job_id,
                    seconds=round(seconds, 4),
                )
            case InHand() | Done():
                _log.debug("tams call", call=call, request_id=request_id, outcome=outcome, seconds=round(seconds, 4))
            case Unauthorized():
                _log.debug("tams call", call=call, request_id=request_id, outcome=outcome, seconds=round(seconds, 4))
            case Refused(failure) | Missing(failure) | TryLater(failure) | NotSent(failure) | Ambiguous(failure):
                _log.warning(
                    "tams call",
                    call=call,
                    request_id=request_id,
                    outcome=outcome,
                    code=failure.code,
                    reason=failure.message,
                    seconds=round(seconds, 4),
                )

    def upstream(self, state: str, detail: str) -> None:
        """See the port."""
        match state:
            case "unauthorized":
                _log.error(
                    "tams refuses our credentials: check BRIDGE_TAMS__API_KEY; jobs wait meanwhile", reason=detail
                )
            case "unreachable":
                _log.error("tams is not reachable: jobs wait, probes go on", reason=detail)
            case _:
                _log.info("tams is reachable again")

    def committed(self, partition: int, changes: Changes, seconds: float) -> None:
        """See the port."""
        self._commits.observe(seconds)
        for event, _ in changes.events:
            self._events.labels(event.type.rpartition(".")[2]).inc()
            if event.type.is_terminal:
                _log.info(
                    "job ended",
                    request_id=event.request_id,
                    type=event.type.value,
                    attempt=event.attempt,
                    events=event.sequence,
                    error=event.error.code if event.error else None,
                )
        for letter in changes.dead_letters:
            self._parked.labels(letter.reason.value).inc()
            _log.warning(
                "request parked",
                partition=partition,
                offset=letter.arrival.offset,
                reason=letter.reason.value,
                detail=letter.detail,
            )

    def ownership(self, partition: int, state: str, detail: str) -> None:
        """See the port."""
        if state in {"opened", "closed"}:
            self._owned.inc(1 if state == "opened" else -1)
            _log.info(f"partition {state}", partition=partition, detail=detail)
        else:
            self._lost.labels(state).inc()
            _log.warning(f"partition {state}", partition=partition, reason=detail)


_forwarder_log = structlog.get_logger("forwarder")


class ForwarderTelemetry:
    """Implements `bridge.webhook_ports.DispatchTelemetry`.

    Args:
        registry: where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Histogram(
            "tams_bridge_webhook_attempt_seconds",
            "Attempts to deliver an event, by how they ended.",
            ("outcome",),
            registry=registry,
            buckets=_CALL_BUCKETS,
        )
        self._delay = Histogram(
            "tams_bridge_webhook_delay_seconds",
            "From an event to its delivery.",
            registry=registry,
            buckets=_DELAY_BUCKETS,
        )
        self._commits = Histogram(
            "tams_bridge_dispatch_commit_seconds",
            "Transactions of the deliveries ledger that were committed.",
            registry=registry,
            buckets=_COMMIT_BUCKETS,
        )
        self._dead = Counter(
            "tams_bridge_webhook_dead_deliveries",
            "Deliveries that went to the dead-letter topic.",
            ("reason",),
            registry=registry,
        )
        self._notices = Counter(
            "tams_bridge_endpoint_notices", "Notices given about endpoints.", ("type",), registry=registry
        )
        self._owned = Gauge(
            "tams_bridge_dispatch_partitions_open", "Partitions of deliveries this process works on.", registry=registry
        )
        self._lost = Counter(
            "tams_bridge_dispatch_partitions_lost",
            "Partitions of deliveries that closed other than by plan.",
            ("state",),
            registry=registry,
        )

    def committed(self, changes: DispatchChanges, seconds: float) -> None:
        """See the port."""
        self._commits.observe(seconds)
        for attempt in changes.attempts:
            self._attempted(attempt)
        for dead in changes.dead:
            self._dead.labels(dead.reason.value).inc()
        for notice in changes.notices:
            self._noticed(notice)
        for letter in changes.dead_letters:
            _forwarder_log.warning("dispatch record parked", offset=letter.arrival.offset, detail=letter.detail)

    def ownership(self, partition: int, state: str, detail: str) -> None:
        """See the port."""
        if state in {"opened", "closed"}:
            self._owned.inc(1 if state == "opened" else -1)
            _forwarder_log.info(f"dispatch partition {state}", partition=partition, detail=detail)
        else:
            self._lost.labels(state).inc()
            _forwarder_log.warning(f"dispatch partition {state}", partition=partition, reason=detail)

    def trouble(self, doing: str, detail: str) -> None:
        """See the port."""
        _forwarder_log.warning(f"{doing} failed, and is tried again", reason=detail)

    def _attempted(self, attempt: Attempt) -> None:
        delivery, made = attempt.delivery, attempt.attempt
        self._attempts.labels(made.outcome.value).observe(made.duration_s)
        if attempt.after is After.DELIVERED:
            ended = made.time.timestamp() + made.duration_s
            self._delay.observe(max(0.0, ended - delivery.time.timestamp()))
        log = _forwarder_log.debug if attempt.after is After.DELIVERED else _forwarder_log.warning
        log(
            "webhook attempt",
            endpoint_id=delivery.endpoint_id,
            event_id=delivery.event_id,
            request_id=delivery.request_id,
            number=made.number,
            outcome=made.outcome.value,
            status=made.status or None,
            error=made.error or None,
            seconds=made.duration_s,
            after=attempt.after.value,
            next_at=delivery.next_at.isoformat() if delivery.next_at and attempt.after is After.WAITING else None,
        )

    def _noticed(self, notice: Notice) -> None:
        word = notice.type.rpartition(".")[2]
        self._notices.labels(word).inc()
        log = _forwarder_log.info if notice.type is NoticeType.RECOVERED else _forwarder_log.error
        log(f"endpoint {word}", endpoint_id=notice.endpoint_id, url=notice.url, detail=notice.detail)
