import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from bridge.emulator import EmulatorSettings, serve
from tests.emulator.hand_clock import Emulate, HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def emulate(clock: HandClock) -> AsyncIterator[Emulate]:
    """Start an emulator with these settings (no rate limit unless given); give a client that has its key."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(_emulator(clock, settings))

        yield start


@asynccontextmanager
async def _emulator(clock: HandClock, settings: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    url = asyncio.get_running_loop().create_future()
    chosen = EmulatorSettings.model_validate({"rate": 0, **settings})
    task = asyncio.create_task(serve(chosen, ready=url.set_result, clock=clock))
    headers = {"Authorization": "Bearer emulator-key"}
    try:
        async with httpx.AsyncClient(base_url=await url, headers=headers) as client:
            yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def graph() -> dict[str, Any]:
    """A graph as ComfyUI's first example has it, with renamed keys."""
    return {
        "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20, "model": ["4", 0], "latent_image": ["5", 0]}},
        "4": {"classType": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "model"}, "properties": {}},
        "5": {"classType": "EmptyLatentImage", "inputs": {"width": 768, "height": 512, "batch_size": 1}},
        "8": {"classType": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"classType": "SaveImage", "inputs": {"images": ["8", 0]}},
    }


@pytest.fixture
def scripted(graph: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Give the body of a create request whose job has this script."""

    def body(request_id: str = "", **script: Any) -> dict[str, Any]:
        node = {"classType": "EmulatorScript", "inputs": script}
        return {"requestId": request_id, "params": {**graph, "script": node}}

    return body
