"""An API in a world in memory, and one who may do everything."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.fakes import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def admin(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client() as client:
        yield client
