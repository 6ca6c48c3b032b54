"""Part of `tams-bridge webhooks`: what became of each event at each endpoint, and sending it again."""

import asyncio
from typing import Annotated, Literal

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bridge.adapters.api_client import Query
from bridge.adapters.clock import SystemClock
from bridge.cli.calls import api_at, ask, client, path_of, show, show_list
from bridge.cli.options import (
    JsonOption,
    KeyOption,
    LimitOption,
    SinceOption,
    UntilOption,
    UrlOption,
    moment,
)
from bridge.cli.tables import Column, fields_of, text_at
from bridge.cli.terminal import answers, notes, run
from bridge.settings import ApiSettings

app = typer.Typer()

EndpointIdArgument = Annotated[str, typer.Argument(metavar="ENDPOINT_ID")]
EventIdArgument = Annotated[str, typer.Argument(metavar="EVENT_ID")]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", metavar="ID", help="Only to this endpoint.")]
RequestOption = Annotated[str | None, typer.Option("--request", metavar="ID", help="Only of this job.")]
EventOption = Annotated[str | None, typer.Option("--event", metavar="ID", help="Only of this event.")]
TypeOption = Annotated[
    list[str] | None, typer.Option("--type", metavar="PATTERN", help="Only of these event types; repeatable.")
]
StateOption = Annotated[
    Literal["pending", "delivered", "dead", "ended"] | None, typer.Option(help="Only those that stand there.")
]

_POLL_S = 0.5
_LAST_STATES = ("done", "canceled")

_DELIVERY_COLUMNS = (
    Column("time", "time", is_time=True),
    Column("state", "state"),
    Column("endpoint", "endpoint_id"),
    Column("event", "event_id"),
    Column("type", "type"),
    Column("tries", "used"),
    Column("next try", "next_at", is_time=True),
    Column("last error", "last_attempt.error", may_wrap=True),
)
_ATTEMPT_COLUMNS = (
    Column("time", "time", is_time=True),
    Column("id", "id"),
    Column("endpoint", "endpoint_id"),
    Column("event", "event_id"),
    Column("no", "number"),
    Column("outcome", "outcome"),
    Column("status", "status"),
    Column("seconds", "duration_s"),
    Column("error", "error", may_wrap=True),
)
_REPLAY_COLUMNS = (
    Column("created", "created", is_time=True),
    Column("id", "id"),
    Column("state", "state"),
    Column("since", "since", is_time=True),
    Column("until", "until", is_time=True),
    Column("looked at", "scanned"),
    Column("sent again", "matched"),
)


@app.command("deliveries", epilog="Example:  tams-bridge webhooks deliveries --state dead --since 2d")
def deliveries(
    endpoint: EndpointOption = None,
    request: RequestOption = None,
    event: EventOption = None,
    types: TypeOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, the newest first: an event on its way to an endpoint, and where it stands."""
    query = _query(endpoint, request, event, types, state, since, until)
    show_list(api_at(url, key), path_of("deliveries"), _DELIVERY_COLUMNS, query=query, limit=limit, as_json=as_json)


@app.command("delivery", epilog="Example:  tams-bridge webhooks delivery ep_1 order-1041.3")
def delivery(
    endpoint_id: EndpointIdArgument,
    event_id: EventIdArgument,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one delivery with all its attempts."""
    show(ask(api_at(url, key), "GET", path_of("deliveries", endpoint_id, event_id)), as_json=as_json)


@app.command("attempts", epilog="Example:  tams-bridge webhooks attempts --endpoint ep_1 --since 1h --json")
def attempts(
    endpoint: EndpointOption = None,
    request: RequestOption = None,
    event: EventOption = None,
    types: TypeOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List single POSTs, the newest first, with what the receiver said."""
    query = _query(endpoint, request, event, types, state, since, until)
    show_list(api_at(url, key), path_of("attempts"), _ATTEMPT_COLUMNS, query=query, limit=limit, as_json=as_json)


@app.command("attempt", epilog="Example:  tams-bridge webhooks attempt at_1")
def attempt(
    attempt_id: Annotated[str, typer.Argument(metavar="ID", help="As `attempts` shows it.")],
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one POST with the heads of request and answer."""
    show(ask(api_at(url, key), "GET", path_of("attempts", attempt_id)), as_json=as_json)


@app.command("redeliver", epilog="Example:  tams-bridge webhooks redeliver ep_1 order-1041.3")
def redeliver(
    endpoint_id: EndpointIdArgument,
    event_id: EventIdArgument,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one event to one endpoint again."""
    path = path_of("deliveries", endpoint_id, event_id, "redeliver")
    show(ask(api_at(url, key), "POST", path), as_json=as_json)


@app.command("replay", epilog="Example:  tams-bridge webhooks replay ep_1 --since 2h --failed-only --wait")
def replay(
    endpoint_id: EndpointIdArgument,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Events not older: 2026-11-24T10:15:04Z, or so long ago: 2h, 3d.")
    ],
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Events not newer; until now if not given.")] = None,
    failed_only: Annotated[bool, typer.Option("--failed-only", help="Only what was given up.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until all of it is in line.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send past events to an endpoint: again, or for the first time if it was created later."""
    body: dict[str, object] = {"since": moment(since, option="--since"), "failed_only": failed_only}
    if until is not None:
        body["until"] = moment(until, option="--until")
    api = api_at(url, key)
    asked = ask(api, "POST", path_of("endpoints", endpoint_id, "replays"), body=body)
    if not wait:
        show(asked, as_json=as_json)
        return
    ended = run(_await_replay(api, asked))
    show(ended, as_json=as_json, names=("id", "state", "scanned", "matched"))
    raise typer.Exit(0 if text_at(fields_of(ended), "state") == "done" else 1)


@app.command("replays", epilog="Example:  tams-bridge webhooks replays ep_1")
def replays(
    endpoint_id: EndpointIdArgument,
    limit: LimitOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the replays of an endpoint, and how far each is."""
    path = path_of("endpoints", endpoint_id, "replays")
    show_list(api_at(url, key), path, _REPLAY_COLUMNS, query=None, limit=limit, as_json=as_json)


@app.command("replay-cancel", epilog="Example:  tams-bridge webhooks replay-cancel rp_1")
def replay_cancel(
    replay_id: Annotated[str, typer.Argument(metavar="REPLAY_ID", help="As `replays` shows it.")],
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """End a replay; what it has put in line already is still sent."""
    ask(api_at(url, key), "POST", path_of("replays", replay_id, "cancel"))
    answers.print(f"asked to cancel {replay_id}", markup=False)


def _query(
    endpoint: str | None,
    request: str | None,
    event: str | None,
    types: list[str] | None,
    state: str | None,
    since: str | None,
    until: str | None,
) -> Query:
    return {
        "endpoint_id": endpoint,
        "request_id": request,
        "event_id": event,
        "type": types,
        "state": state,
        "since": moment(since, option="--since"),
        "until": moment(until, option="--until"),
    }


async def _await_replay(api: ApiSettings, asked: msgspec.Raw) -> msgspec.Raw:
    """Look at a replay until it has ended."""
    path = path_of("replays", text_at(fields_of(asked), "id"))
    bar = Progress(
        TextColumn("[bold]replay"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[matched]} in line"),
        TimeElapsedColumn(),
        console=notes,
        disable=not notes.is_terminal,
    )
    clock = SystemClock()
    async with client(api) as opened:
        with bar:
            task = bar.add_task("replay", total=1.0, matched=0)
            while text_at(fields := fields_of(asked), "state") not in _LAST_STATES:
                bar.update(task, completed=_share(fields), matched=fields.get("matched", 0))
                await clock.wait(asyncio.Event(), _POLL_S)
                asked = await opened.ask("GET", path)
            bar.update(task, completed=1.0, matched=fields.get("matched", 0))
    return asked


def _share(fields: dict[str, object]) -> float:
    progress = fields.get("progress")
    return float(progress) if isinstance(progress, int | float) else 0.0
