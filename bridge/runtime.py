"""Processes: which roles run together, and how they are put together."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack

from bridge.adapters.clock import SystemClock
from bridge.adapters.tams import authorization
from bridge.adapters.vault import Vault
from bridge.ports import Clock
from bridge.roles.api import build_api
from bridge.roles.forwarder import build_forwarder
from bridge.roles.ground import Role, RoleName, lay_ground
from bridge.roles.worker import build_worker
from bridge.settings import Settings
from bridge.shell import Part, Process, Shell

__all__ = ["RoleName", "build_process", "run_roles"]


async def run_roles(
    settings: Settings,
    roles: Collection[RoleName],
    *,
    ready: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> None:
    """Run some roles in this process until SIGTERM or SIGINT, or until something ends it.

    Args:
        settings: in force.
        roles: which.
        ready: called once they have begun.
        stop: ends them when set, as a signal does.
        clock: the machine's if not given.

    Raises:
        CannotStart: they could not begin.
        Exception: what ended them, if it was not a signal; nothing half done has been written.
    """
    async with AsyncExitStack() as stack:
        shell = Shell(settings, await build_process(settings, roles, stack, clock=clock), stop=stop)
        await shell.run(ready)


async def build_process(
    settings: Settings, roles: Collection[RoleName], stack: AsyncExitStack, *, clock: Clock | None = None
) -> Process:
    """Put a process together, creating topics that are absent; `clock` is the machine's if not given.

    Raises:
        CannotStart: settings, credentials, broker or topics are not as they must be.
    """
    _check_secrets(settings, roles)
    ground = await lay_ground(settings, stack, clock=clock or SystemClock())
    built: list[Role] = []
    if "worker" in roles:
        built.append(await build_worker(ground))
    if "forwarder" in roles:
        built.append(build_forwarder(ground))
    if "api" in roles:
        built.append(await build_api(ground))
    registry_tail = Part("registry tail", ground.registry_tail.run, ground.registry_tail.stop)
    return Process(
        stages=(
            [part for role in built for part in role.work],
            [part for role in built for part in role.feeds],
            [registry_tail, *(part for role in built for part in role.tails)],
        ),
        problems=lambda: [problem for role in built for problem in role.problems()],
        state=lambda: {role.name: role.state() for role in built},
        metrics=ground.metrics,
        api=next((role.api for role in built if role.api is not None), None),
    )


def _check_secrets(settings: Settings, roles: Collection[RoleName]) -> None:
    """What is wrong with them is said before a broker is waited for."""
    if "worker" in roles:
        authorization(settings.tams, clock=SystemClock())
    if "forwarder" in roles or settings.webhooks.encryption_keys:
        Vault([key.get_secret_value() for key in settings.webhooks.encryption_keys])
