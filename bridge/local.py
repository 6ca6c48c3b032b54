"""A whole bridge on one machine: a broker, the TAMS emulator and a worker, for `dev` and `demo`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bridge.adapters.brokers import BrokerUnavailable, apache_broker, embedded_broker
from bridge.errors import CannotStart
from bridge.runtime import run_worker
from bridge.settings import Settings, read_settings

BrokerChoice = Literal["embedded", "apache"]

EMULATOR_KEY = "emulator-key"
EMULATOR_CALLS_PER_SECOND = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStack:
    """What runs, and where.

    Args:
        settings: in force for every part, and for clients.
        tams_url: where the emulator answers.
        worker: ends when the worker does.
    """

    settings: Settings
    tams_url: str
    worker: asyncio.Task[None]


@asynccontextmanager
async def local_stack(  # noqa: PLR0913  one argument for each choice
    *,
    broker: BrokerChoice,
    kafka: str | None,
    data_dir: Path | None,
    speed: float,
    overrides: Mapping[str, Mapping[str, object]],
    kafka_port: int = 0,
    emulator_port: int = 0,
) -> AsyncIterator[LocalStack]:
    """Run broker, emulator and worker until the block is left.

    Args:
        broker: which to start, unless `kafka` names one that runs.
        kafka: bootstrap servers of a broker that runs.
        data_dir: where the broker keeps its data; a temporary place if None.
        speed: how much faster than real time the emulator's jobs run.
        overrides: further settings, by section.
        kafka_port, emulator_port: where broker and emulator listen; 0 for any free port.

    Raises:
        CannotStart: a part is missing or cannot begin.
    """
    async with AsyncExitStack() as stack:
        servers = kafka or await _start_broker(stack, broker, data_dir, kafka_port)
        tams_url = await _start_emulator(stack, speed, emulator_port)
        settings = read_settings(
            **{
                **overrides,
                "kafka": {"bootstrap_servers": servers},
                "tams": {
                    "base_url": tams_url,
                    "api_key": EMULATOR_KEY,
                    "rate": EMULATOR_CALLS_PER_SECOND * speed,
                    "burst": EMULATOR_CALLS_PER_SECOND,
                },
            }
        )
        ready = asyncio.Event()
        worker = asyncio.create_task(run_worker(settings, ready=ready.set))
        stack.push_async_callback(_end, worker)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({worker, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if worker.done():
            await worker
        yield LocalStack(settings=settings, tams_url=tams_url, worker=worker)


async def _start_broker(stack: AsyncExitStack, broker: BrokerChoice, data_dir: Path | None, port: int) -> str:
    starting = apache_broker(data_dir, port) if broker == "apache" else embedded_broker(data_dir, port)
    try:
        return (await stack.enter_async_context(starting)).bootstrap_servers
    except BrokerUnavailable as error:
        raise CannotStart(str(error)) from error


async def _start_emulator(stack: AsyncExitStack, speed: float, port: int) -> str:
    try:
        from bridge.emulator import EmulatorSettings, serve  # noqa: PLC0415  needs the extra `emulator`
    except ImportError as error:
        message = "the emulator needs Pillow: pip install 'tams-bridge[emulator]'"
        raise CannotStart(message) from error
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = EmulatorSettings(speed=speed, rate=EMULATOR_CALLS_PER_SECOND)
    serving = asyncio.create_task(serve(settings, port=port, ready=url.set_result))
    stack.push_async_callback(_end, serving)
    serving.add_done_callback(lambda _: url.done() or url.cancel())
    try:
        return await url
    except asyncio.CancelledError:
        message = f"the emulator cannot listen on port {port}: {serving.exception()}"
        raise CannotStart(message) from None


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
