"""The commands that run something until Ctrl-C: the roles, what a developer needs, the demo."""

import sys
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer

from bridge.adapters.brokers.process import is_free
from bridge.adapters.telemetry import configure_logging
from bridge.cli.options import KafkaOption, settings_with
from bridge.cli.terminal import answers, note, run
from bridge.errors import CannotStart
from bridge.local import BrokerChoice, LocalStack, local_stack
from bridge.runtime import RoleName, run_roles
from bridge.settings import read_settings

app = typer.Typer()

_KAFKA_PORT = 9092


@app.command("worker", epilog="Example:  BRIDGE_TAMS__API_KEY=… tams-bridge worker --kafka localhost:9092")
def worker(kafka: KafkaOption = None) -> None:
    """Run a worker: requests become TAMS jobs, and every change of a job an event."""
    _run_roles({"worker"}, kafka)


@app.command("forwarder", epilog="Example:  BRIDGE_WEBHOOKS__ENCRYPTION_KEYS='[\"…\"]' tams-bridge forwarder")
def forwarder(kafka: KafkaOption = None) -> None:
    """Run a forwarder: events become signed POSTs to the registered webhooks."""
    _run_roles({"forwarder"}, kafka)


@app.command("api", epilog="Example:  BRIDGE_HTTP__HOST=0.0.0.0 BRIDGE_HTTP__PORT=8080 tams-bridge api")
def api(kafka: KafkaOption = None) -> None:
    """Serve the HTTP API: webhooks, deliveries, jobs. `tams-bridge keys create` makes the first key."""
    _run_roles({"api"}, kafka)


@app.command("run", epilog="Example:  BRIDGE_TAMS__API_KEY=… tams-bridge run")
def run_all(kafka: KafkaOption = None) -> None:
    """Run every role in one process: worker, forwarder and API."""
    _run_roles({"worker", "forwarder", "api"}, kafka)


@app.command("dev", epilog="Example:  tams-bridge dev --speed 5")
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
    """Run a broker, the TAMS emulator and every role on this machine, until Ctrl-C."""
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
    note(f"starting {kafka or f'the {broker} broker'}, the emulator and the bridge …")
    run(_dev(stack, speed))


@app.command("emulator", epilog="Example:  tams-bridge emulator --port 8500 --speed 10")
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


@app.command("demo", epilog="Example:  tams-bridge demo --out pictures")
def demo(
    kafka: KafkaOption = None,
    broker: Annotated[BrokerChoice, typer.Option(help="Which broker to start.")] = "embedded",
    out: Annotated[Path, typer.Option(help="Where the outputs are saved.")] = Path("demo-output"),
    speed: Annotated[float, typer.Option(min=1, help="How much faster than real time emulated jobs run.")] = 4.0,
) -> None:
    """Send jobs of every fate through a broker and the emulator, shown live; exits with 1 if one ends otherwise."""
    from bridge.demo import run_demo  # noqa: PLC0415  needs the extra `emulator`

    raise typer.Exit(run(run_demo(answers, broker=broker, kafka=kafka, out=out, speed=speed)))


def _run_roles(roles: Collection[RoleName], kafka: str | None) -> None:
    settings = settings_with(kafka)
    configure_logging(settings.log)
    run(run_roles(settings, roles))


async def _dev(starting: AbstractAsyncContextManager[LocalStack], speed: float) -> None:
    async with starting as stack:
        settings = stack.settings
        servers = settings.kafka.bootstrap_servers
        health = f"http://{settings.http.host}:{settings.http.port}/health/ready" if settings.http.port else "(no port)"
        answers.print(
            f"Kafka     {servers}\n"
            f"TAMS      {stack.tams_url}   (emulator, {speed:g} times real time)\n"
            f"API       {stack.api_url}   (key {stack.api_key})\n"
            f"health    {health}\n\n"
            "Try, in another terminal:\n"
            f"  tams-bridge watch --kafka {servers}\n"
            f"  tams-bridge submit --kafka {servers} --wait - <<< "
            """'{"3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20}}}'\n"""
            f"  export BRIDGE_API__URL={stack.api_url} BRIDGE_API__KEY={stack.api_key}\n"
            "  tams-bridge webhooks create http://127.0.0.1:9000/ && tams-bridge listen --secret whsec_…\n\n"
            "Ctrl-C ends all of it.",
            markup=False,
        )
        await stack.bridge
