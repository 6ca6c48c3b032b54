"""What crosses the wire: requests, answers, refusals, and JSON the way proto3 writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias
from urllib.parse import unquote

import msgspec

from bridge.emulator.images import Picture

JsonObject: TypeAlias = dict[str, object]

JSON = "application/json"


class RpcCode(IntEnum):
    """The google.rpc codes the emulator answers with."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAUTHENTICATED = 16


class Int64(int):
    """An integer that travels as a string, as 64-bit integers do in proto3 JSON."""


@dataclass(slots=True)
class Request:
    """A request as received; header names in lower case."""

    method: str = "GET"
    target: bytes = b"/"
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    keep_alive: bool = True
    too_long: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return self.target.partition(b"?")[2].decode("latin-1")

    def header(self, name: bytes) -> str:
        """Give the value of a header, empty if absent."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to send back, and how: late, dripping, or not at all. A picture is drawn when it is sent."""

    status: int = 200
    body: bytes | Picture = b"{}"
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    cut: bool = False


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, document: Mapping[str, object], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, document)
        self.answer = Answer(status=status, body=msgspec.json.encode(document), headers=headers or {})


def rpc_status(code: RpcCode, message: str, details: Sequence[JsonObject] = ()) -> JsonObject:
    """Give a google.rpc.Status."""
    return {"code": int(code), "message": message, "details": list(details)}


def invalid_argument(*messages: str, field_name: str = "workflow") -> Refusal:
    """Refuse parameters, in the words of TAMS: "Params Valid" although they are not."""
    details: list[JsonObject] = [
        {"@type": "type.googleapis.com/tams_api.ArgumentError", "field": field_name, "message": message}
        for message in messages
    ]
    return Refusal(400, rpc_status(RpcCode.INVALID_ARGUMENT, "Params Valid", details))


def not_found(what: str) -> Refusal:
    """Refuse because there is no such thing."""
    return Refusal(404, rpc_status(RpcCode.NOT_FOUND, f"{what} not found"))


def json_answer(document: Mapping[str, object], *, write_defaults: bool = True) -> Answer:
    """Answer 200 with a document."""
    return Answer(body=msgspec.json.encode(_message(document, write_defaults=write_defaults)))


def read_json_object(body: bytes | bytearray) -> JsonObject:
    """Read a request body, which must be a JSON object; raise `Refusal` if it is not."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, rpc_status(RpcCode.INVALID_ARGUMENT, f"proto: syntax error: {error}")) from error
    if not isinstance(document, dict):
        raise Refusal(400, rpc_status(RpcCode.INVALID_ARGUMENT, "proto: syntax error: object expected"))
    return document


def _message(document: Mapping[str, object], *, write_defaults: bool) -> JsonObject:
    # `not value` is true of exactly the proto3 defaults: an absent message, zero, an empty string, list or map.
    return {
        name: _value(value, write_defaults=write_defaults)
        for name, value in document.items()
        if value or write_defaults
    }


def _value(value: object, *, write_defaults: bool) -> object:
    if isinstance(value, dict):
        return _message(value, write_defaults=write_defaults)
    if isinstance(value, list):
        return [_value(item, write_defaults=write_defaults) for item in value]
    return str(value) if isinstance(value, Int64) else value
