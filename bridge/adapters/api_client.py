"""The HTTP API seen from outside, for the commands: asks, reads pages, follows server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Self, TypeVar

import httpx
import msgspec
from typing_extensions import override

from bridge.core.event_stream import EventStreamDecoder, ServerEvent
from bridge.errors import BridgeError, CannotStart
from bridge.ports import Clock
from bridge.settings import ApiSettings

T = TypeVar("T")

Query = Mapping[str, str | Sequence[str] | None]
"""What a list is narrowed by; None leaves a name out."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""A stream says something every few seconds, if only that it lives; one that is silent for longer has broken."""
_TRIES = 3
_PAGE = 200
_RECONNECT_AFTER_S = (1.0, 1.0, 2.0, 4.0, 8.0, 8.0)
_UNAUTHORIZED = 401
_SERVER_ERROR = 500


class ApiRefused(BridgeError):
    """The API answered, and did not do what was asked; the message says why, in one line.

    Args:
        message: for people.
        status: HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class _FieldProblem(msgspec.Struct):
    field: str = ""
    message: str = ""


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""
    errors: list[_FieldProblem] = []

    @override
    def __str__(self) -> str:
        fields = "; ".join(f"{each.field}: {each.message}" for each in self.errors)
        return " ".join((fields or self.detail or self.title).split())


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    next: str | None = None


class ApiClient:
    """Speaks to the API; every answer is the API's document as it came.

    Args:
        api: where it is, and the key.
        clock: for pauses before a broken stream is taken up again.

    Raises:
        CannotStart: there is no key, or it cannot be one.
    """

    def __init__(self, api: ApiSettings, *, clock: Clock) -> None:
        key = api.key.get_secret_value() if api.key is not None else ""
        if not key:
            message = "api: no key: set BRIDGE_API__KEY or give --key (`tams-bridge keys create` makes one)"
            raise CannotStart(message)
        if not (key.isascii() and key.isprintable()) or " " in key:
            message = "api: what BRIDGE_API__KEY or --key holds is no API key: one is written as tbk_…_…"
            raise CannotStart(message)
        self._url = str(api.url).rstrip("/")
        self._clock = clock
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}", "user-agent": "tams-bridge"}, timeout=_TIMEOUT, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(
        self, method: str, path: str, *, query: Query | None = None, body: object = None, repeat_as: str | None = None
    ) -> msgspec.Raw:
        """One call.

        Args:
            method, path: of the API; what stands in the path is quoted already.
            query: its parameters.
            body: sent as JSON; nothing if None.
            repeat_as: an idempotency key: if the connection breaks, the call is repeated with it.

        Returns:
            The document; empty where the API answers with none.

        Raises:
            CannotStart: nothing answers, or something else than the API.
            ApiRefused: the API says no, or fails.
        """
        headers = {"idempotency-key": repeat_as} if repeat_as is not None else {}
        if body is not None:
            headers["content-type"] = "application/json"
        request = self._http.build_request(
            method,
            self._url + path,
            params=_parameters(query),
            content=None if body is None else msgspec.json.encode(body),
            headers=headers,
        )
        response = await self._send(request, tries=1 if repeat_as is None else _TRIES)
        if not response.is_success:
            raise self._refusal(response)
        return self._checked(response.content, msgspec.Raw) if response.content else msgspec.Raw()

    async def pages(
        self, path: str, *, query: Query | None = None, limit: int | None = None
    ) -> AsyncIterator[msgspec.Raw]:
        """Every item of a list, page by page.

        Args:
            path, query: of the list.
            limit: end after so many.

        Raises:
            CannotStart, ApiRefused: as `ask`.
        """
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            document = await self.ask("GET", path, query={**(query or {}), "limit": str(size), "cursor": cursor})
            page = self._checked(bytes(document), _Page)
            for item in page.data[:left]:
                yield item
            left, cursor = None if left is None else left - len(page.data), page.next
            if cursor is None:
                return

    async def follow(
        self, path: str, *, query: Query | None = None, broke: Callable[[str], None]
    ) -> AsyncGenerator[ServerEvent, None]:
        """Server-sent events, for as long as the caller wants them; a stream that ends is taken up again.

        Args:
            path, query: of the stream.
            broke: told why a stream ended, before it is taken up again.

        Raises:
            CannotStart, ApiRefused: as `ask`; once a stream has begun, only if it cannot be taken up for a while.
        """
        failures, has_begun = 0, False
        while True:
            try:
                async with aclosing(self._stream(path, query)) as events:
                    async for event in events:
                        has_begun, failures = True, 0
                        if event is not None:
                            yield event
                reason = "the API ended the stream"
            except (CannotStart, ApiRefused) as error:
                if not has_begun or failures == len(_RECONNECT_AFTER_S) or not _may_pass(error):
                    raise
                reason = str(error)
            broke(reason)
            await self._clock.wait(asyncio.Event(), _RECONNECT_AFTER_S[failures])
            failures += 1

    async def _stream(self, path: str, query: Query | None) -> AsyncGenerator[ServerEvent | None, None]:
        """One connection's events, after a None once it stands."""
        request = self._http.build_request(
            "GET",
            self._url + path,
            params=_parameters(query),
            headers={"accept": "text/event-stream"},
            timeout=_STREAM_TIMEOUT,
        )
        response = await self._send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                raise self._refusal(response)
            yield None
            decoder = EventStreamDecoder()
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    yield event
        except httpx.RequestError as error:
            raise self._broken(error) from error
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request, *, tries: int = 1, stream: bool = False) -> httpx.Response:
        while True:
            tries -= 1
            try:
                return await self._http.send(request, stream=stream)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                message = (
                    f"api: {self._url} cannot be reached: {_reason(error)} "
                    "(check --url or BRIDGE_API__URL, and that `tams-bridge api` runs there)"
                )
                raise CannotStart(message) from error
            except httpx.RequestError as error:
                if not tries:
                    raise self._broken(error) from error

    def _broken(self, error: httpx.RequestError) -> CannotStart:
        return CannotStart(f"api: the connection to {self._url} broke: {_reason(error)}")

    def _refusal(self, response: httpx.Response) -> CannotStart | ApiRefused:
        status = response.status_code
        if status == _UNAUTHORIZED:
            message = f"api: {self._url} does not accept this key: check BRIDGE_API__KEY or --key; it may be revoked"
            return ApiRefused(message, status=status)
        problem = _problem(response)
        if problem is not None:
            return ApiRefused(f"api: {problem}", status=status)
        if status >= _SERVER_ERROR:
            return ApiRefused(f"api: {self._url} fails: {status} {response.reason_phrase}", status=status)
        return self._stranger(f"{status} {response.reason_phrase}")

    def _stranger(self, said: str) -> CannotStart:
        return CannotStart(
            f"api: {self._url} answers, but not as the API of tams-bridge ({said}): check --url or BRIDGE_API__URL"
        )

    def _checked(self, document: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(document, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._stranger(str(error)) from error


def _parameters(query: Query | None) -> dict[str, str | list[str]]:
    return {name: value if isinstance(value, str) else list(value) for name, value in (query or {}).items() if value}


def _problem(response: httpx.Response) -> _Problem | None:
    """What the API says is wrong (RFC 9457), if it is the API that answers."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _may_pass(error: CannotStart | ApiRefused) -> bool:
    return isinstance(error, CannotStart) or error.status >= _SERVER_ERROR


def _reason(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
