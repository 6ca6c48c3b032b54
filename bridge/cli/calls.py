"""What commands that speak to the HTTP API have in common."""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from bridge.adapters.api_client import ApiClient, Query
from bridge.adapters.clock import SystemClock
from bridge.cli.tables import Column, print_fields, print_table
from bridge.cli.terminal import print_json, run
from bridge.settings import ApiSettings, read_settings


def api_at(url: str | None, key: str | None) -> ApiSettings:
    """Where the API is, and the key, from the command line or the settings.

    Raises:
        CannotStart: a setting is wrong.
    """
    given = {name: value for name, value in (("url", url), ("key", key)) if value is not None}
    return read_settings(**({"api": given} if given else {})).api


def path_of(*parts: str) -> str:
    """A path of the API, from names as people write them."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def client(api: ApiSettings) -> ApiClient:
    """A client on the machine's clock."""
    return ApiClient(api, clock=SystemClock())


def ask(
    api: ApiSettings,
    method: str,
    path: str,
    *,
    query: Query | None = None,
    body: object = None,
    repeat_as: str | None = None,
) -> msgspec.Raw:
    """One call; see `ApiClient.ask`."""

    async def call() -> msgspec.Raw:
        async with client(api) as opened:
            return await opened.ask(method, path, query=query, body=body, repeat_as=repeat_as)

    return run(call())


def show(document: msgspec.Raw, *, as_json: bool, names: Sequence[str] | None = None) -> None:
    """Print one document."""
    if as_json:
        print_json(document)
    else:
        print_fields(document, names)


def show_list(
    api: ApiSettings, path: str, columns: Sequence[Column], *, query: Query | None, limit: int | None, as_json: bool
) -> None:
    """Print every item of a list."""

    async def read() -> list[msgspec.Raw]:
        found: list[msgspec.Raw] = []
        async with client(api) as opened:
            async for item in opened.pages(path, query=query, limit=limit):
                if as_json:
                    print_json(item)
                else:
                    found.append(item)
        return found

    found = run(read())
    if not as_json:
        print_table(columns, found)
