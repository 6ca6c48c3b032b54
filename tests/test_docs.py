"""The documents say what the code does: every name that a reader may meet is in them, and none that does not exist."""

import re
from pathlib import Path

import pytest
import typer
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.telemetry import ForwarderTelemetry, WorkerTelemetry
from bridge.api import app as api
from bridge.cli import app
from bridge.messages import DeadLetterReason, EventType, JobRequest
from bridge.settings import Settings, TopicSettings
from bridge.webhook_messages import NoticeType

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_event_type_is_explained_with_its_topic() -> None:
    """A consumer must find out where each event goes."""
    events, topics = text("docs/events.md"), TopicNames.of(TopicSettings()).events

    for kind in EventType:
        row = next(line for line in events.splitlines() if line.startswith(f"| `{kind.value}`"))
        assert row.endswith(f"| {topics[kind].rpartition('.')[2]} |")


def test_every_reason_for_parking_is_explained() -> None:
    """Whoever looks at a dead letter looks its reason up."""
    assert all(f"`{reason.value}`" in text("docs/requests.md") for reason in DeadLetterReason)


def test_every_field_of_a_request_is_explained() -> None:
    """A field that is not in the table is not known to exist."""
    assert all(f"| `{field}` |" in text("docs/requests.md") for field in [*JobRequest.model_fields, "cancel"])


def test_every_metric_is_explained() -> None:
    """An operator cannot alert on a name that is not written down."""
    registry = CollectorRegistry()
    WorkerTelemetry(registry)
    ForwarderTelemetry(registry)

    for metric in registry.collect():
        assert metric.name in text("docs/operating.md")


def test_every_topic_is_explained() -> None:
    """An operator must know what each holds before changing its retention."""
    assert all(f"`{name}`" in text("docs/operating.md") for name in TopicNames.of(TopicSettings()).all)


def test_every_notice_is_explained() -> None:
    """Who gets one wants to know what to do."""
    assert all(f"`{kind.value}`" in text("docs/webhooks.md") for kind in NoticeType)


def test_every_call_of_the_api_is_in_its_table_and_no_other() -> None:
    """The table is what people read; OpenAPI is for machines."""
    routes = [route for part in (api, *api._PARTS) for route in part.router.routes if isinstance(route, APIRoute)]
    called = {f"{method} {route.path.replace(':path}', '}')}" for route in routes for method in route.methods or ()}
    named = set(re.findall(r"^\| `([A-Z]+ /[^`]+)`", text("docs/api.md"), flags=re.MULTILINE))

    assert called == named


def test_every_command_is_named_in_the_readme() -> None:
    """The README is the only list of them that a person reads before installing."""
    command = typer.main.get_command(app)

    assert isinstance(command, typer.core.TyperGroup)
    assert all(f"`{name}" in text("README.md") for name in command.commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_in_the_documents_is_a_setting(document: Path) -> None:
    """A variable that does nothing, written in a document, costs somebody an afternoon."""
    for section, name in re.findall(r"\bBRIDGE_([A-Z]+)__([A-Z0-9_]+)", document.read_text(encoding="utf-8")):
        assert section.lower() in Settings.model_fields, section
        fields = type(getattr(Settings(), section.lower())).model_fields
        assert name.lower() in fields or name == "HOST:PORT", name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Links between the documents survive a rename only if something checks them."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
