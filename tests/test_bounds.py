"""Every time-out, retry and buffer has its bound; what bounds it is a setting that does something."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
from pydantic import BaseModel

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.runtime import run_roles
from bridge.settings import Settings
from tests.brokers import RunningBroker
from tests.integration.stack import quick_settings

ROOT = Path(__file__).parent.parent
CODE = "\n".join(file.read_text() for file in (ROOT / "bridge").rglob("*.py") if file.name != "settings.py")
MOST = 12


def all_settings() -> Iterator[str]:
    """The name of every setting."""
    for name, section in Settings():
        yield from type(section).model_fields if isinstance(section, BaseModel) else (name,)


def test_every_setting_is_read_by_somebody() -> None:
    """One that does nothing costs whoever sets it an afternoon."""
    assert [name for name in all_settings() if not re.search(rf"\.{name}\b", CODE)] == []


async def test_connections_beyond_the_most_are_answered_503_and_served_again_once_others_have_gone(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """Who opens connections and says nothing takes no memory and no file descriptors without end."""
    [port] = free_ports(1)
    settings = quick_settings(
        broker.bootstrap_servers, topic_prefix, "http://127.0.0.1:9", http={"port": port, "max_connections": MOST}
    )
    stop, url = asyncio.Event(), f"http://127.0.0.1:{port}/health/live"
    async with httpx.AsyncClient(trust_env=False, headers={"connection": "close"}) as http:
        worker = asyncio.create_task(run_roles(settings, {"worker"}, stop=stop))
        await _until_answered(http, url, 200)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
        await _until_answered(http, url, 503)

        for _, writer in silent[1:]:
            writer.close()
        await _until_answered(http, url, 200)
        silent[0][1].close()
        stop.set()
        async with asyncio.timeout(15):
            await worker


async def _until_answered(http: httpx.AsyncClient, url: str, status: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await http.get(url)).status_code == status:
                    return
            except httpx.TransportError:
                pass
            await SystemClock().wait(asyncio.Event(), 0.05)
