"""What a person sees of an event."""

from datetime import UTC, datetime
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from bridge.adapters.kafka.client import Parked
from bridge.messages import NOTHING, EventType, Failure, JobEvent
from bridge.screen import STYLES, JobBars, line, outputs, progress, state


def event(kind: EventType, *, job: object = None, error: Failure | None = None, attempt: int = 1) -> JobEvent:
    return JobEvent(
        id="order-1.2",
        type=kind,
        time=datetime(2026, 11, 24, tzinfo=UTC),
        request_id="order-1",
        sequence=2,
        attempt=attempt,
        labels={},
        job=NOTHING if job is None else msgspec.Raw(msgspec.json.encode(job)),
        error=error,
    )


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        (event(EventType.ACCEPTED), "accepted"),
        (event(EventType.WAITING, job={"waitingInfo": {"queueRank": "3", "queueLen": "9"}}), "waiting, 3 of 9"),
        (event(EventType.WAITING, job={}), "waiting"),
        (event(EventType.RUNNING, job={"runningInfo": {"processingImages": [{"progress": 0.25}]}}), "running, 25%"),
        (event(EventType.RUNNING, job={"runningInfo": {"workflowFinishItem": {"progress": 50}}}), "running, 50%"),
        (
            event(EventType.SUCCESS, job={"successInfo": {"images": [{"url": "u"}], "videos": [{}]}}),
            "success, 2 outputs",
        ),
        (event(EventType.FAILED, error=Failure(code="FATAL_ERROR", message="no GPU")), "failed: FATAL_ERROR: no GPU"),
        (event(EventType.RUNNING, job={"runningInfo": "nonsense"}), "running, 0%"),
    ],
)
def test_an_event_is_told_in_a_few_words(shown: JobEvent, seen: str) -> None:
    """Whatever TAMS puts into the job, the screen shows something sensible."""
    assert state(shown) == seen


def test_every_event_type_has_a_style_and_a_line() -> None:
    """A new type must not make `watch` fail."""
    assert set(STYLES) == set(EventType)
    assert all("order-1 #2" in line(event(kind)).plain for kind in EventType)


def test_a_parked_request_is_a_line_with_its_reason() -> None:
    """The person who published it must see why."""
    parked = Parked(request_id="order-1", reason="invalid_json", detail="not JSON", value=b"{")

    assert line(parked).plain == "order-1 parked: invalid_json: not JSON"


def test_a_job_that_has_ended_is_complete() -> None:
    """A bar that stops half-way would look like a hang."""
    assert progress(event(EventType.FAILED)) == 1.0
    assert outputs(event(EventType.FAILED)) == []


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_show_each_job_and_markup_in_messages_is_only_text(*, is_terminal: bool) -> None:
    """A message of TAMS that looks like markup is shown, not carried out."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=100, color_system=None)

    with JobBars(console, ["order-1"]) as bars:
        bars.show(event(EventType.FAILED, error=Failure(code="X", message="[red]oops[/nope]")))
        bars.show(Parked(request_id="order-2", reason="empty", detail="no [value]", value=b""))

    assert "[red]oops[/nope]" in screen.getvalue()
    assert "no [value]" in screen.getvalue()
