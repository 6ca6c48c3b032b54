"""The command `tams-bridge`. Commands only read arguments and show answers; the work is elsewhere.

Exit codes: 0 done · 1 a job did not succeed, or a check found a problem · 2 could not start · 130 interrupted.
"""

import json
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
import uvloop
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from bridge.adapters.brokers.process import is_free
from bridge.adapters.kafka.client import BridgeClient, Parked
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.telemetry import configure_logging
from bridge.errors import CannotStart
from bridge.local import BrokerChoice, LocalStack, local_stack
from bridge.messages import EventType, JobEvent
from bridge.requests_file import Draft, read_drafts
from bridge.runtime import run_worker
from bridge.screen import JobBars, line, outputs
from bridge.settings import Settings, read_settings

app = typer.Typer(
    name="tams-bridge",
    help="Job requests on a Kafka topic become TAMS jobs, and every change of a job an event.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(
    help="Create the topics, or check that they are as the bridge needs them.", no_args_is_help=True
)
app.add_typer(topics_app, name="topics")

KafkaOption = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Brokers; beats BRIDGE_KAFKA__BOOTSTRAP_SERVERS.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document a line on standard output.")]

T = TypeVar("T")

_answers = Console(highlight=False, soft_wrap=True)
_KAFKA_PORT = 9092
_notes = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; whatever cannot start says so in one line and exits with 2."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a worker's own log hears it, see configure_logging
    try:
        app(arguments)
    except CannotStart as error:
        _notes.print(f"tams-bridge: {error}", soft_wrap=True, markup=False)
        sys.exit(2)


@app.command(epilog="Example:  BRIDGE_TAMS__API_KEY=… tams-bridge worker --kafka localhost:9092")
def worker(kafka: KafkaOption = None) -> None:
    """Run a worker: requests become TAMS jobs, and every change of a job an event."""
    settings = _settings(kafka)
    configure_logging(settings.log)
    _run(run_worker(settings))


@app.command(epilog="Example:  BRIDGE_TAMS__API_KEY=… tams-bridge run")
def run(kafka: KafkaOption = None) -> None:
    """Run every role in one process (for now: the worker)."""
    worker(kafka)


@app.command(epilog="Example:  tams-bridge dev --speed 5")
def dev(
    kafka: KafkaOption = None,
    broker: Annotated[
        BrokerChoice, typer.Option(help="Which broker to start: embedded (a wheel) or apache (Java).")
    ] = "embedded",
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the broker keeps its data; nowhere if not given.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.01, help="How much faster than real time emulated jobs run.")] = 1.0,
    kafka_port: Annotated[int | None, typer.Option(help="Port of the broker; 9092 if it is free, else any.")] = None,
    emulator_port: Annotated[int, typer.Option(help="Port of the TAMS emulator; 0 for any.")] = 0,
) -> None:
    """Run a broker, the TAMS emulator and a worker on this machine, until Ctrl-C."""
    if kafka_port is None:
        kafka_port = _KAFKA_PORT if is_free(_KAFKA_PORT) else 0
    stack = local_stack(
        broker=broker,
        kafka=kafka,
        data_dir=data_dir,
        speed=speed,
        overrides={},
        kafka_port=kafka_port,
        emulator_port=emulator_port,
    )
    configure_logging(read_settings().log)
    _notes.print(f"starting {kafka or f'the {broker} broker'}, the emulator and a worker …", markup=False)
    _run(_dev(stack, speed))


@app.command(epilog="Example:  tams-bridge emulator --port 8500 --speed 10")
def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any.")] = 8500,
    speed: Annotated[float, typer.Option(min=0.01, help="How much faster than real time jobs run.")] = 1.0,
    rate: Annotated[
        float, typer.Option(min=0, help="Calls a second allowed, by the emulator's clock; 0 for no limit.")
    ] = 5.0,
    switch: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=JSON", help="Any other switch of the emulator; repeatable."),
    ] = None,
) -> None:
    """Run a TAMS to talk to; the key is `emulator-key`, the admin API lies under /_emulator/."""
    try:
        from bridge.emulator.__main__ import main as emulate  # noqa: PLC0415  needs the extra `emulator`
    except ImportError as error:
        message = "the emulator needs Pillow: pip install 'tams-bridge[emulator]'"
        raise CannotStart(message) from error
    switches = [word for name in switch or () for word in ("--set", name)]
    sys.exit(emulate(["--host", host, "--port", str(port), "--speed", str(speed), "--rate", str(rate), *switches]))


@topics_app.command("create", epilog="Example:  tams-bridge topics create --kafka localhost:9092")
def topics_create(kafka: KafkaOption = None) -> None:
    """Create the topics that are absent."""
    settings = _settings(kafka)
    created = _run(_topics(settings).create())
    _answers.print("\n".join(f"created {name}" for name in created) or "nothing to create: every topic is there")


@topics_app.command("check", epilog="Example:  tams-bridge topics check && echo fine")
def topics_check(kafka: KafkaOption = None) -> None:
    """Compare every topic with what the bridge needs; exits with 1 if one must be changed."""
    settings = _settings(kafka)
    states = _run(_topics(settings).check())
    for state in states:
        _answers.print(f"{state.name}: {state.problem or f'fine, {state.partitions} partitions'}", markup=False)
    raise typer.Exit(1 if any(state.problem for state in states) else 0)


@app.command(epilog="Example:  tams-bridge submit graph.json --label tenant=acme --wait")
def submit(  # noqa: PLR0913, PLR0917  one argument for each option
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A graph, a request, a list of either, or JSON lines.")],
    kafka: KafkaOption = None,
    request_id: Annotated[str | None, typer.Option("--id", help="Request id; a random one if not given.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label; repeatable.")] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="Give the job up after this long.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts when TAMS fails for a passing reason.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until every job has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish job requests. With --wait the exit code is 0 only if every job succeeded."""
    settings = _settings(kafka)
    text = sys.stdin.read() if file == "-" else _read(Path(file))
    defaults = {
        "request_id": request_id,
        "labels": _labels(label),
        "deadline_s": deadline,
        "max_attempts": max_attempts,
    }
    drafts = read_drafts(text, source="standard input" if file == "-" else file, defaults=defaults)
    raise typer.Exit(_run(_submit(settings, drafts, wait=wait, as_json=as_json)))


@app.command(epilog="Example:  tams-bridge cancel order-1041")
def cancel(request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID…")], kafka: KafkaOption = None) -> None:
    """Ask for jobs to be canceled; `watch` shows what became of it."""
    _run(_cancel(_settings(kafka), request_ids))


@app.command(epilog="Example:  tams-bridge watch --from-start --id order-1041 --json")
def watch(
    kafka: KafkaOption = None,
    request_id: Annotated[str | None, typer.Option("--id", help="Only this request.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest event kept.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show events as they come, until Ctrl-C."""
    _run(_watch(_settings(kafka), request_id, from_start=from_start, count=count, as_json=as_json))


@app.command(epilog="Example:  tams-bridge demo --out pictures")
def demo(
    kafka: KafkaOption = None,
    broker: Annotated[BrokerChoice, typer.Option(help="Which broker to start.")] = "embedded",
    out: Annotated[Path, typer.Option(help="Where the outputs are saved.")] = Path("demo-output"),
    speed: Annotated[float, typer.Option(min=1, help="How much faster than real time emulated jobs run.")] = 4.0,
) -> None:
    """Send jobs of every fate through a broker and the emulator, shown live; exits with 1 if one ends otherwise."""
    from bridge.demo import run_demo  # noqa: PLC0415  needs the extra `emulator`

    raise typer.Exit(_run(run_demo(_answers, broker=broker, kafka=kafka, out=out, speed=speed)))


@app.command(epilog="Example:  tams-bridge config --json")
def config(kafka: KafkaOption = None, as_json: JsonOption = False) -> None:
    """Show the settings in force, with their variables; secrets are masked."""
    settings = _settings(kafka)
    if as_json:
        print(settings.model_dump_json(indent=2))  # noqa: T201  this is the answer
        return
    values = settings.model_dump(mode="json")
    for section, described in type(settings).model_fields.items():
        value = getattr(settings, section)
        if isinstance(value, BaseModel):
            for name, field in type(value).model_fields.items():
                _print_setting(f"{section}__{name}", values[section][name], field.description)
        else:
            _print_setting(section, value, described.description)


def _print_setting(name: str, value: object, meaning: str | None) -> None:
    shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    _answers.print(Text.assemble(f"BRIDGE_{name.upper()}={shown}", (f"   # {meaning}", "dim")))


def _topics(settings: Settings) -> Topics:
    return Topics(settings.kafka, settings.topics, longest_answer=settings.tams.max_answer_bytes)


def _settings(kafka: str | None) -> Settings:
    return read_settings(**({"kafka": {"bootstrap_servers": kafka}} if kafka else {}))


def _run(work: Coroutine[None, None, T]) -> T:
    try:
        return uvloop.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        message = f"{file} cannot be read: {reason}"
        raise CannotStart(message) from None


def _labels(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    pairs = [label.partition("=") for label in given]
    wrong = [name for name, equals, _ in pairs if not (name and equals)]
    if wrong:
        message = f"--label {wrong[0]!r}: a label is NAME=VALUE"
        raise CannotStart(message)
    return {name: value for name, _, value in pairs}


async def _submit(settings: Settings, drafts: list[Draft], *, wait: bool, as_json: bool) -> int:
    async with BridgeClient(settings) as client:
        if not wait:
            for request_id, value in drafts:
                await client.publish(request_id, value)
                _answers.print(request_id, markup=False)
            return 0
        async with client.following() as events:
            for request_id, value in drafts:
                await client.publish(request_id, value)
            return await _await_ends(events, [request_id for request_id, _ in drafts], as_json=as_json)


async def _await_ends(events: AsyncIterator[JobEvent | Parked], request_ids: list[str], *, as_json: bool) -> int:
    """Show events of these requests until each has ended; 0 if all succeeded."""
    ends: dict[str, JobEvent | Parked] = {}
    with JobBars(_notes, request_ids) as bars:
        async for event in events:
            if event.request_id not in request_ids or event.request_id in ends:
                continue
            bars.show(event)
            if as_json:
                _print_json(event)
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
            _answers.print(f"asked to cancel {request_id}", markup=False)


async def _watch(
    settings: Settings, request_id: str | None, *, from_start: bool, count: int | None, as_json: bool
) -> None:
    shown = 0
    async with BridgeClient(settings) as client, client.following(from_start=from_start) as events:
        async for event in events:
            if request_id not in {None, event.request_id}:
                continue
            if as_json:
                _print_json(event)
            else:
                _answers.print(line(event))
            shown += 1
            if shown == count:
                return


def _print_json(event: JobEvent | Parked) -> None:
    document: object = event
    if isinstance(event, Parked):
        document = {"type": "parked", "request_id": event.request_id, "reason": event.reason, "detail": event.detail}
    print(msgspec.json.encode(document).decode(), flush=True)  # noqa: T201  this is the answer


async def _dev(starting: AbstractAsyncContextManager[LocalStack], speed: float) -> None:
    async with starting as stack:
        settings = stack.settings
        servers = settings.kafka.bootstrap_servers
        health = f"http://{settings.http.host}:{settings.http.port}/health/ready" if settings.http.port else "(no port)"
        _answers.print(
            f"Kafka     {servers}\n"
            f"TAMS      {stack.tams_url}   (emulator, {speed:g} times real time)\n"
            f"health    {health}\n\n"
            "Try, in another terminal:\n"
            f"  tams-bridge watch --kafka {servers}\n"
            f"  tams-bridge submit --kafka {servers} --wait - <<< "
            """'{"3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20}}}'\n\n"""
            "Ctrl-C ends all of it.",
            markup=False,
        )
        await stack.worker
