"""`tams-bridge jobs`: jobs over the HTTP API, for those who do not speak Kafka."""

from contextlib import aclosing
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from bridge.adapters.api_client import Query
from bridge.cli.calls import api_at, ask, client, path_of, show, show_list
from bridge.cli.options import (
    JsonOption,
    KeyOption,
    LimitOption,
    SinceOption,
    UntilOption,
    UrlOption,
    moment,
    pairs,
)
from bridge.cli.requests import (
    DeadlineOption,
    FileArgument,
    LabelOption,
    MaxAttemptsOption,
    PriorityOption,
    RequestIdOption,
    drafts_of,
)
from bridge.cli.tables import Column, fields_of, text_at
from bridge.cli.terminal import answers, note, print_json, run
from bridge.core.event_stream import ServerEvent
from bridge.messages import JobEvent, Phase
from bridge.screen import line
from bridge.settings import ApiSettings

app = typer.Typer(help="Submit jobs and see what becomes of them, over the HTTP API.", no_args_is_help=True)

_COLUMNS = (
    Column("accepted", "accepted_at", is_time=True),
    Column("id", "request_id"),
    Column("phase", "phase"),
    Column("attempt", "attempt"),
    Column("labels", "labels", may_wrap=True),
    Column("error", "error.message", may_wrap=True),
)
_SNAPSHOT = "snapshot"


@app.command("submit", epilog="Example:  tams-bridge jobs submit graph.json --label tenant=acme")
def submit(
    file: FileArgument,
    request_id: RequestIdOption = None,
    label: LabelOption = None,
    deadline: DeadlineOption = None,
    max_attempts: MaxAttemptsOption = None,
    priority: PriorityOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit job requests; prints their ids, for `jobs follow`."""
    drafts = drafts_of(
        file,
        request_id=request_id,
        labels=pairs(label),
        deadline_s=deadline,
        max_attempts=max_attempts,
        priority=priority,
    )

    async def work() -> None:
        async with client(api_at(url, key)) as api:
            for _, value in drafts:
                accepted = await api.ask("POST", path_of("jobs"), body=msgspec.Raw(value))
                if as_json:
                    print_json(accepted)
                else:
                    answers.print(text_at(fields_of(accepted), "request_id"), markup=False)

    run(work())


@app.command("list", epilog="Example:  tams-bridge jobs list --state failed --label tenant=acme --since 1d")
def list_all(
    state: Annotated[Phase | None, typer.Option(help="Only those in this phase.")] = None,
    label: LabelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, those that have ended a while ago left out."""
    query = {
        "state": state,
        "label": _label_filter(label),
        "since": moment(since, option="--since"),
        "until": moment(until, option="--until"),
    }
    show_list(api_at(url, key), path_of("jobs"), _COLUMNS, query=query, limit=limit, as_json=as_json)


@app.command("show", epilog="Example:  tams-bridge jobs show order-1041 --json")
def show_one(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The request id.")],
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job with what TAMS last said of it."""
    show(ask(api_at(url, key), "GET", path_of("jobs", request_id)), as_json=as_json)


@app.command("cancel", epilog="Example:  tams-bridge jobs cancel order-1041")
def cancel(
    request_ids: Annotated[list[str], typer.Argument(metavar="ID…")], url: UrlOption = None, key: KeyOption = None
) -> None:
    """Ask for jobs to be canceled; `jobs follow` shows what became of it."""
    api = api_at(url, key)
    for request_id in request_ids:
        ask(api, "POST", path_of("jobs", request_id, "cancel"))
        answers.print(f"asked to cancel {request_id}", markup=False)


@app.command("follow", epilog="Example:  tams-bridge jobs follow order-1041")
def follow(
    request_id: Annotated[str | None, typer.Argument(metavar="ID", help="Of one job; all if not given.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="PATTERN", help="Of all jobs, only events of these types; repeatable."),
    ] = None,
    label: LabelOption = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show events as they come. Of one job: until it has ended, and the exit code is 0 only if it succeeded."""
    api = api_at(url, key)
    if request_id is None:
        query = {"type": types, "label": _label_filter(label)}
        run(_follow(api, path_of("events"), query=query, count=count, as_json=as_json))
        return
    path = path_of("jobs", request_id, "events")
    end = run(_follow(api, path, query=None, count=count, as_json=as_json, until_ended=True))
    raise typer.Exit(0 if end in {None, Phase.SUCCESS} else 1)


async def _follow(
    api: ApiSettings, path: str, *, query: Query | None, count: int | None, as_json: bool, until_ended: bool = False
) -> Phase | None:
    """Show events until there were enough; the phase the job ended in, if that is what ended it."""
    shown = 0
    async with client(api) as opened, aclosing(opened.follow(path, query=query, broke=_tell_break)) as events:
        async for event in events:
            _show(event, as_json=as_json)
            shown += 1
            end = _end(event)
            if (until_ended and end is not None) or shown == count:
                return end
    return None


def _tell_break(reason: str) -> None:
    note(f"tams-bridge: {reason}; trying again, events in between may be missed …")


def _show(event: ServerEvent, *, as_json: bool) -> None:
    document = msgspec.Raw(event.data.encode())
    if as_json:
        print_json(document)
    elif event.name == _SNAPSHOT:
        fields = fields_of(document)
        answers.print(Text.assemble((text_at(fields, "request_id"), "bold"), f" is {text_at(fields, 'phase')}"))
    else:
        answers.print(_line(document))


def _line(document: msgspec.Raw) -> Text:
    try:
        return line(msgspec.json.decode(document, type=JobEvent))
    except msgspec.ValidationError:  # a newer API may tell of what this command does not know
        fields = fields_of(document)
        return Text.assemble((text_at(fields, "request_id"), "bold"), f" {text_at(fields, 'type')}")


def _end(event: ServerEvent) -> Phase | None:
    """The phase a job has ended in, if the event says that it has."""
    fields = fields_of(msgspec.Raw(event.data.encode()))
    for phase in Phase:
        ended = text_at(fields, "phase") if event.name == _SNAPSHOT else text_at(fields, "type").rpartition(".")[2]
        if phase.is_terminal and ended == phase:
            return phase
    return None


def _label_filter(label: list[str] | None) -> list[str] | None:
    given = pairs(label)
    return None if given is None else [f"{name}:{value}" for name, value in given.items()]
