"""What an operator reads in the log."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from bridge.adapters import telemetry
from bridge.adapters.telemetry import ForwarderTelemetry, configure_logging
from bridge.messages import DeadLetterReason
from bridge.ports import Arrival, DeadLetter
from bridge.settings import LogSettings
from bridge.webhook_messages import (
    After,
    Attempt,
    AttemptSummary,
    DeadDelivery,
    DeadReason,
    Delivery,
    Exchange,
    Notice,
    NoticeType,
    Outcome,
)
from bridge.webhook_ports import DispatchChanges


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging(LogSettings(format="json"), file=tmp_path / "log")
    for name, logger in (("_log", "worker"), ("_forwarder_log", "forwarder")):  # theirs keep to the first settings
        monkeypatch.setattr(telemetry, name, structlog.get_logger(logger))
    yield tmp_path / "log"
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_library_that_repeats_itself_is_heard_once_a_minute(log: Path) -> None:
    """With the brokers gone, aiokafka says the same many times a second; other lines must still be found."""
    for node in range(50):
        logging.getLogger("aiokafka.cluster").error("Unable connect to node with id %s", node)

    assert [line["event"] for line in lines(log)] == ["Unable connect to node with id 0"]


def test_our_own_lines_are_all_written(log: Path) -> None:
    """Two jobs that end alike are two lines."""
    for _ in range(2):
        logging.getLogger("worker").warning("request parked")

    assert len(lines(log)) == 2


# ------------------------------------------------------------------------------------------------------- the forwarder
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def attempt(outcome: Outcome, after: After, **fields: Any) -> Attempt:
    """An attempt a minute after its event, half a second long."""
    made = AttemptSummary(number=1, time=NOW + timedelta(minutes=1), outcome=outcome, duration_s=0.5, **fields)
    delivery = Delivery(
        endpoint_id="ep_a",
        event_id="order-1.3",
        type="tams.job.success",
        request_id="order-1",
        sequence=3,
        time=NOW,
        ordered=NOW,
        attempts=(made,),
        next_at=NOW + timedelta(minutes=2),
    )
    exchange = Exchange(request_headers={"x-key": "t0ken"})
    return Attempt(
        delivery=delivery,
        webhook_id="msg_1",
        url="https://acme.example/hook",
        attempt=made,
        after=after,
        exchange=exchange,
    )


@dataclass
class Told:
    """What a forwarder's telemetry makes of what it is told."""

    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.telemetry = ForwarderTelemetry(self.metrics)

    def committed(self, **changes: Any) -> None:
        self.telemetry.committed(DispatchChanges(**changes), 0.01)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.get_sample_value(f"tams_bridge_{name}", labels)


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_attempt_is_one_line_that_tells_what_happened_to_what_and_goes_on_how(log: Path, told: Told) -> None:
    failed = attempt(Outcome.FAILED, After.WAITING, status=500, error="the receiver answered 500")

    told.committed(attempts=[failed])

    (line,) = lines(log)
    assert line.pop("timestamp")
    assert line == {
        "event": "webhook attempt",
        "level": "warning",
        "logger": "forwarder",
        "endpoint_id": "ep_a",
        "event_id": "order-1.3",
        "request_id": "order-1",
        "number": 1,
        "outcome": "failed",
        "status": 500,
        "error": "the receiver answered 500",
        "seconds": 0.5,
        "after": "waiting",
        "next_at": "2026-03-01T12:02:00+00:00",
    }


def test_deliveries_are_counted_and_timed_and_not_told_one_by_one(log: Path, told: Told) -> None:
    """Thousands a second may succeed."""
    told.committed(attempts=2 * [attempt(Outcome.DELIVERED, After.DELIVERED, status=204)])

    assert lines(log) == []
    assert told.value("webhook_attempt_seconds_count", outcome="delivered") == 2
    assert told.value("webhook_delay_seconds_sum") == 2 * 60.5
    assert told.value("dispatch_commit_seconds_count") == 1


def test_what_did_not_arrive_has_no_delay(told: Told) -> None:
    told.committed(attempts=[attempt(Outcome.FAILED, After.DEAD)])

    assert told.value("webhook_delay_seconds_count") == 0


@pytest.mark.parametrize(
    ("kind", "level", "event"),
    [
        (NoticeType.FAILING, "error", "endpoint failing"),
        (NoticeType.DISABLED, "error", "endpoint disabled"),
        (NoticeType.BACKLOG_FULL, "error", "endpoint backlog-full"),
        (NoticeType.RECOVERED, "info", "endpoint recovered"),
    ],
)
def test_every_notice_is_a_line_too(kind: NoticeType, level: str, event: str, log: Path, told: Told) -> None:
    """Being silent is a bug."""
    notice = Notice(id="n", type=kind, time=NOW, endpoint_id="ep_a", url="https://acme.example/hook", detail="because")

    told.committed(notices=[notice])

    (line,) = lines(log)
    assert (line["event"], line["level"], line["detail"]) == (event, level, "because")
    assert (line["endpoint_id"], line["url"]) == ("ep_a", "https://acme.example/hook")
    assert told.value("endpoint_notices_total", type=event.removeprefix("endpoint ")) == 1


def test_what_is_given_up_and_what_cannot_be_read_is_counted_or_told(log: Path, told: Told) -> None:
    delivery = attempt(Outcome.FAILED, After.DEAD).delivery
    arrival = Arrival(offset=7, key=None, value=b"{")

    told.committed(
        dead=[DeadDelivery(delivery=delivery, reason=DeadReason.EXHAUSTED, time=NOW)],
        dead_letters=[DeadLetter(arrival, DeadLetterReason.INVALID_DISPATCH, "not a dispatch record", NOW)],
    )

    (line,) = lines(log)
    assert (line["event"], line["offset"]) == ("dispatch record parked", 7)
    assert told.value("webhook_dead_deliveries_total", reason="exhausted") == 1


def test_partitions_are_counted_while_they_are_open_and_when_they_are_lost(log: Path, told: Told) -> None:
    for partition, state in [(0, "opened"), (1, "opened"), (1, "closed"), (1, "lost"), (0, "unavailable")]:
        told.telemetry.ownership(partition, state, "why")

    assert told.value("dispatch_partitions_open") == 1
    assert told.value("dispatch_partitions_lost_total", state="lost") == 1
    assert told.value("dispatch_partitions_lost_total", state="unavailable") == 1
    assert [line["level"] for line in lines(log)] == ["info", "info", "info", "warning", "warning"]


def test_trouble_is_told_with_its_reason(log: Path, told: Told) -> None:
    told.telemetry.trouble("replay", "no answer from the brokers in time")

    (line,) = lines(log)
    assert (line["event"], line["reason"]) == (
        "replay failed, and is tried again",
        "no answer from the brokers in time",
    )
