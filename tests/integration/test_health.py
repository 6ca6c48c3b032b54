"""What an operator, or a container platform, sees of a worker over HTTP."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.emulator import EmulatorSettings, serve
from bridge.errors import CannotStart
from bridge.runtime import run_roles
from bridge.settings import Settings
from tests.brokers import RunningBroker
from tests.integration.stack import quick_settings

PATIENCE_S = 30


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """An emulator in this process."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(EmulatorSettings(), ready=url.set_result, stop=stop))
    yield await url
    stop.set()
    await task


def settings_of(broker: RunningBroker, prefix: str, tams_url: str, port: int) -> Settings:
    return quick_settings(broker.bootstrap_servers, prefix, tams_url, http={"port": port})


async def ready(http: httpx.AsyncClient, url: str, settings: Settings) -> httpx.Response:
    """The answer once all partitions are open."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await http.get(f"{url}/health/ready")
                if answer.json()["worker"]["partitions"]["open"] == settings.topics.partitions:
                    return answer
            except httpx.TransportError:
                await SystemClock().wait(asyncio.Event(), 0.05)


async def test_a_worker_serves_health_and_metrics_until_sigterm(broker: RunningBroker, topic_prefix: str) -> None:
    """Live, ready with its figures, metrics by their names; SIGTERM ends it without an error."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with serving() as tams_url, httpx.AsyncClient(trust_env=False) as http:
        settings = settings_of(broker, topic_prefix, tams_url, port)
        worker = asyncio.create_task(run_roles(settings, {"worker"}))
        told = await ready(http, url, settings)
        live, metrics = await http.get(f"{url}/health/live"), await http.get(f"{url}/metrics")
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await worker

    assert live.json() == {"status": "ok"}
    assert (told.status_code, told.json()["problems"]) == (200, [])
    assert told.json()["worker"]["jobs"] == {"live": 0, "waiting": 0, "tracked": 0}
    for name in ("jobs_live", "jobs_waiting", "jobs_tracked", "requests_lag", "tams_reachable", "tams_authorized"):
        assert f"\ntams_bridge_{name} " in metrics.text


async def test_a_role_starts_from_any_of_several_brokers(broker: RunningBroker, topic_prefix: str) -> None:
    """`host:port, host:port`, as the setting says, with or without blanks, and though the first one is gone."""
    [port, dead] = free_ports(2)
    servers = f"127.0.0.1:{dead}, {broker.bootstrap_servers},{broker.bootstrap_servers}"
    stop = asyncio.Event()
    async with serving() as tams_url, httpx.AsyncClient(trust_env=False) as http:
        settings = quick_settings(servers, topic_prefix, tams_url, http={"port": port})
        worker = asyncio.create_task(run_roles(settings, {"worker"}, stop=stop))
        told = await ready(http, f"http://127.0.0.1:{port}", settings)
        stop.set()
        async with asyncio.timeout(10):
            await worker

    assert (told.status_code, told.json()["problems"]) == (200, [])


async def test_a_port_that_is_taken_is_named(broker: RunningBroker, topic_prefix: str) -> None:
    """A second worker on one machine meets this first."""
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]

    async with taken, serving() as tams_url:
        with pytest.raises(
            CannotStart, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use \(set BRIDGE_HTTP__PORT"
        ):
            await run_roles(settings_of(broker, topic_prefix, tams_url, port), {"worker"})
