"""`tams-bridge submit`, `cancel` and `watch`: requests and events over Kafka."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from bridge.adapters.kafka.client import BridgeClient, Parked
from bridge.cli.options import JsonOption, KafkaOption, pairs, settings_with, text_of
from bridge.cli.terminal import answers, notes, print_json, run
from bridge.messages import EventType, JobEvent
from bridge.requests_file import Draft, read_drafts
from bridge.screen import JobBars, line, outputs
from bridge.settings import Settings

app = typer.Typer()

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE|-", help="A graph, a request, a list of either, or JSON lines.")
]
RequestIdOption = Annotated[str | None, typer.Option("--id", help="Request id; a random one if not given.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label; repeatable.")]
DeadlineOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Give the job up after this long.")]
MaxAttemptsOption = Annotated[int | None, typer.Option(help="Attempts when TAMS fails for a passing reason.")]
PriorityOption = Annotated[
    int | None, typer.Option(help="0 to 9: while jobs wait, higher ones go first; 4 if not given.")
]


@app.command("submit", epilog="Example:  tams-bridge submit graph.json --label tenant=acme --wait")
def submit(
    file: FileArgument,
    kafka: KafkaOption = None,
    request_id: RequestIdOption = None,
    label: LabelOption = None,
    deadline: DeadlineOption = None,
    max_attempts: MaxAttemptsOption = None,
    priority: PriorityOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until every job has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish job requests. With --wait the exit code is 0 only if every job succeeded."""
    settings = settings_with(kafka)
    drafts = drafts_of(
        file,
        request_id=request_id,
        labels=pairs(label),
        deadline_s=deadline,
        max_attempts=max_attempts,
        priority=priority,
    )
    raise typer.Exit(run(_submit(settings, drafts, wait=wait, as_json=as_json)))


@app.command("cancel", epilog="Example:  tams-bridge cancel order-1041")
def cancel(request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID…")], kafka: KafkaOption = None) -> None:
    """Ask for jobs to be canceled; `watch` shows what became of it."""
    run(_cancel(settings_with(kafka), request_ids))


@app.command("watch", epilog="Example:  tams-bridge watch --from-start --id order-1041 --json")
def watch(
    kafka: KafkaOption = None,
    request_id: Annotated[str | None, typer.Option("--id", help="Only this request.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest event kept.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show events as they come, until Ctrl-C."""
    run(_watch(settings_with(kafka), request_id, from_start=from_start, count=count, as_json=as_json))


def drafts_of(file: str, **defaults: object) -> list[Draft]:
    """The requests of a file, or of standard input for `-`.

    Args:
        file: its name.
        defaults: fields for requests that do not have them; None means not given.

    Raises:
        CannotStart: it cannot be read, or holds no requests.
    """
    text = sys.stdin.read() if file == "-" else text_of(Path(file))
    return read_drafts(text, source="standard input" if file == "-" else file, defaults=defaults)


async def _submit(settings: Settings, drafts: list[Draft], *, wait: bool, as_json: bool) -> int:
    async with BridgeClient(settings) as client:
        if not wait:
            for request_id, value in drafts:
                await client.publish(request_id, value)
                answers.print(request_id, markup=False)
            return 0
        async with client.following() as events:
            for request_id, value in drafts:
                await client.publish(request_id, value)
            return await _await_ends(events, [request_id for request_id, _ in drafts], as_json=as_json)


async def _await_ends(events: AsyncIterator[JobEvent | Parked], request_ids: list[str], *, as_json: bool) -> int:
    """Show events of these requests until each has ended; 0 if all succeeded."""
    ends: dict[str, JobEvent | Parked] = {}
    with JobBars(notes, request_ids) as bars:
        async for event in events:
            if event.request_id not in request_ids or event.request_id in ends:
                continue
            bars.show(event)
            if as_json:
                print_event(event)
            if isinstance(event, Parked) or event.type.is_terminal:
                ends[event.request_id] = event
            if len(ends) == len(set(request_ids)):
                break
    succeeded = [end for end in ends.values() if isinstance(end, JobEvent) and end.type is EventType.SUCCESS]
    if not as_json:
        for end in succeeded:
            _print_outputs(end)
    return 0 if len(succeeded) == len(ends) else 1


def _print_outputs(end: JobEvent) -> None:
    for output in outputs(end):
        print(f"{end.request_id}\t{output.url}")  # noqa: T201  rich would turn the tab into spaces


async def _cancel(settings: Settings, request_ids: list[str]) -> None:
    async with BridgeClient(settings) as client:
        for request_id in request_ids:
            await client.cancel(request_id)
            answers.print(f"asked to cancel {request_id}", markup=False)


async def _watch(
    settings: Settings, request_id: str | None, *, from_start: bool, count: int | None, as_json: bool
) -> None:
    shown = 0
    async with BridgeClient(settings) as client, client.following(from_start=from_start) as events:
        async for event in events:
            if request_id not in {None, event.request_id}:
                continue
            if as_json:
                print_event(event)
            else:
                answers.print(line(event))
            shown += 1
            if shown == count:
                return


def print_event(event: JobEvent | Parked) -> None:
    """One event as a JSON document."""
    if isinstance(event, Parked):
        parked = {"type": "parked", "request_id": event.request_id, "reason": event.reason, "detail": event.detail}
        print_json(parked)
    else:
        print_json(event)
