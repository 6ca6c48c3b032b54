"""A whole bridge on one machine: a broker, the TAMS emulator and every role, for `dev` and `demo`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from bridge.adapters.brokers import BrokerUnavailable, apache_broker, embedded_broker
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.api_keys import ApiKeyTopic
from bridge.adapters.vault import new_encryption_key
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.errors import CannotStart
from bridge.runtime import run_roles
from bridge.settings import Settings, read_settings
from bridge.webhook_messages import ApiKey, Scope

BrokerChoice = Literal["embedded", "apache"]

EMULATOR_KEY = "emulator-key"
EMULATOR_CALLS_PER_SECOND = 5

_ENCRYPTION_KEY_FILE = "webhooks.key"
_OK = 200
_KEY_POLL_S = 0.05
_MAX_SILENCE_S = 20.0  # emulated: whoever tries it wants to see the queue move


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStack:
    """What runs, and where.

    Args:
        settings: in force for every part, and for clients.
        tams_url: where the emulator answers.
        api_url, api_key: where the API answers, and a key that may do everything there; made anew at every start.
        bridge: ends when the bridge does.
    """

    settings: Settings
    tams_url: str
    api_url: str
    api_key: str
    bridge: asyncio.Task[None]


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
    """Run broker, emulator and bridge until the block is left.

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
                "poll": {"max_silence_s": _MAX_SILENCE_S / speed},
                **overrides,
                "kafka": {"bootstrap_servers": servers},
                "webhooks": _webhooks(data_dir),
                "tams": {
                    "base_url": tams_url,
                    "api_key": EMULATOR_KEY,
                    "rate": EMULATOR_CALLS_PER_SECOND * speed,
                    "burst": EMULATOR_CALLS_PER_SECOND,
                },
            }
        )
        bridge = await _start_bridge(stack, settings)
        api_url = f"http://{settings.http.host}:{settings.http.port}"
        api_key = await _make_api_key(settings, api_url)
        yield LocalStack(settings=settings, tams_url=tams_url, api_url=api_url, api_key=api_key, bridge=bridge)


def _webhooks(data_dir: Path | None) -> dict[str, object]:
    """Webhooks may lead to this machine, and their secrets can be read again as long as the broker's data is kept."""
    loopback: dict[str, object] = {"allowed_networks": ("127.0.0.0/8", "::1/128")}
    if read_settings().webhooks.encryption_keys:
        return loopback
    kept = data_dir / _ENCRYPTION_KEY_FILE if data_dir is not None else None
    key = kept.read_text().strip() if kept is not None and kept.exists() else new_encryption_key()
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch(mode=0o600)
        kept.write_text(key)
    return {**loopback, "encryption_keys": (key,)}


async def _start_bridge(stack: AsyncExitStack, settings: Settings) -> asyncio.Task[None]:
    ready, stop = asyncio.Event(), asyncio.Event()
    roles = run_roles(settings, {"worker", "forwarder", "api"}, ready=ready.set, stop=stop)
    bridge = asyncio.create_task(roles)

    async def end() -> None:
        stop.set()
        await asyncio.gather(bridge, return_exceptions=True)

    stack.push_async_callback(end)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({bridge, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if bridge.done():
        await bridge
    return bridge


async def _make_api_key(settings: Settings, api_url: str) -> str:
    """A key that the API already knows."""
    made, clock = make_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES)), SystemClock()
    key = ApiKey(
        id=made.id,
        name="this machine",
        secret_hash=made.secret_hash,
        scopes=(Scope.ADMIN,),
        created=clock.now(),
    )
    await ApiKeyTopic(settings, clock=clock).write(key.id, key)
    async with httpx.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {made.text}"}) as http:
        async with asyncio.timeout(settings.kafka.connect_timeout_s):
            while (await http.get(f"{api_url}/v1/api-keys")).status_code != _OK:
                await clock.wait(asyncio.Event(), _KEY_POLL_S)
    return made.text


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
    rate = EMULATOR_CALLS_PER_SECOND if speed == 1 else 0  # on a fast clock a stall of this machine looks like a burst
    settings = EmulatorSettings(speed=speed, rate=rate)
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
