from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from bridge.settings import Settings
from tests.brokers import RunningBroker
from tests.integration.stack import Bystander, Emulator, bystander, quick_settings


@dataclass(frozen=True, slots=True)
class Stage:
    """An emulator, a bystander, and the settings of the worker that is missing."""

    emulator: Emulator
    user: Bystander
    settings: Settings


@asynccontextmanager
async def stage_on(servers: str, prefix: str, **sections: dict[str, object]) -> AsyncIterator[Stage]:
    """All but the worker."""
    async with AsyncExitStack() as stack:
        emulator = Emulator()
        await emulator.start()
        stack.push_async_callback(emulator.stop)
        settings = quick_settings(servers, prefix, emulator.url, **sections)
        user = await stack.enter_async_context(bystander(settings))
        yield Stage(emulator, user, settings)


@pytest.fixture
async def stage(broker: RunningBroker, topic_prefix: str) -> AsyncIterator[Stage]:
    async with stage_on(broker.bootstrap_servers, topic_prefix) as stage:
        yield stage
