"""Who is to be told of what: the registered endpoints as their topics add up to.

Records by key (US is the control character 0x1f, which no endpoint id can hold):

    of `<prefix>.endpoints`, written by the API, each when it is confirmed:
        <endpoint id>             an `Endpoint`; null once deleted
        US "tenant" US <tenant>   a `TenantSecrets`
    of `<prefix>.endpoints.status`, written by forwarders in their transactions, which may stay open for a while:
        <endpoint id> US "status" an `EndpointStatus`, for the epoch of the endpoint it names
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar, assert_never

from bridge.core.layouts import UNREADABLE, KeptReader
from bridge.errors import NewerLayout
from bridge.webhook_messages import Endpoint, EndpointStatus, TenantSecrets

TENANT_LABEL = "tenant"
"""The label whose value says whose job it is."""

_STATUS_SUFFIX = "\x1fstatus"
_TENANT_PREFIX = "\x1ftenant\x1f"
_SHAPES_KEPT = 10_000

RecordT = TypeVar("RecordT", Endpoint, EndpointStatus, TenantSecrets)

_ENDPOINTS, _STATUSES, _TENANTS = KeptReader(Endpoint), KeptReader(EndpointStatus), KeptReader(TenantSecrets)


class EndpointState(StrEnum):
    """Whether POSTs go to an endpoint."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"


def endpoint_key(endpoint_id: str) -> bytes:
    """Key of an `Endpoint`."""
    return endpoint_id.encode()


def status_key(endpoint_id: str) -> bytes:
    """Key of an `EndpointStatus`."""
    return (endpoint_id + _STATUS_SUFFIX).encode()


def tenant_key(tenant: str) -> bytes:
    """Key of a `TenantSecrets`."""
    return (_TENANT_PREFIX + tenant).encode()


def matches_type(patterns: Iterable[str], event_type: str) -> bool:
    """Whether any of the patterns covers the type; `*` stands for anything, and all else for itself."""
    return any(pattern == event_type or _covers(pattern, event_type) for pattern in patterns)


def _covers(pattern: str, text: str) -> bool:
    """In time that grows as the two texts do: anybody may write patterns, of any length."""
    begin, *parts = pattern.split("*")
    if not parts:
        return False
    end = parts.pop()
    if len(begin) + len(end) > len(text) or not (text.startswith(begin) and text.endswith(end)):
        return False
    at = len(begin)
    for part in parts:
        found = text.find(part, at, len(text) - len(end))
        if found < 0:
            return False
        at = found + len(part)
    return True


class Registry:
    """All endpoints, their statuses and the tenants' secrets, as of the last record applied.

    `unreadable` holds the keys whose latest record makes no sense; `newer` says of those that a later release wrote
    what they are. With any of them it is not known who is to be told of what.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.statuses: dict[str, EndpointStatus] = {}
        self.tenants: dict[str, TenantSecrets] = {}
        self.unreadable: set[str] = set()
        self.newer: dict[str, str] = {}
        self._by_shape: dict[tuple[str, str | None], list[Endpoint]] = {}

    def apply(self, key: bytes, value: bytes | None) -> str | None:
        """Take in one record, in the order of the topic; one that cannot be read changes nothing and is remembered.

        Returns:
            The id of the endpoint it is about, if it is about one.
        """
        name = key.decode(errors="replace")
        if name.startswith(_TENANT_PREFIX):
            self._keep(self.tenants, name.removeprefix(_TENANT_PREFIX), name, value, _TENANTS)
            return None
        if name.endswith(_STATUS_SUFFIX):
            endpoint_id = name.removesuffix(_STATUS_SUFFIX)
            self._keep(self.statuses, endpoint_id, name, value, _STATUSES)
            return endpoint_id
        self._keep(self.endpoints, name, name, value, _ENDPOINTS)
        self._by_shape.clear()
        return name

    def _keep(
        self, kept: dict[str, RecordT], name: str, key: str, value: bytes | None, reader: KeptReader[RecordT]
    ) -> None:
        self.unreadable.discard(key)
        self.newer.pop(key, None)
        if value is None:
            kept.pop(name, None)
            return
        try:
            record = reader.read(value)
        except NewerLayout as error:
            self.unreadable.add(key)
            self.newer[key] = str(error)
        except UNREADABLE:
            self.unreadable.add(key)
        else:
            if _name_of(record) == name:
                kept[name] = record
            else:
                self.unreadable.add(key)

    def status(self, endpoint_id: str) -> EndpointStatus | None:
        """How an endpoint does; None while it works, and for one that was enabled anew since."""
        endpoint, status = self.endpoints.get(endpoint_id), self.statuses.get(endpoint_id)
        return status if endpoint is not None and status is not None and status.epoch == endpoint.epoch else None

    def state(self, endpoint_id: str) -> EndpointState | None:
        """Whether POSTs go to an endpoint; None for one that is not registered."""
        endpoint, status = self.endpoints.get(endpoint_id), self.status(endpoint_id)
        if endpoint is None:
            return None
        if status is not None and status.disabled_at is not None:
            return EndpointState.DISABLED
        return EndpointState.PAUSED if endpoint.paused else EndpointState.ENABLED

    def subscribers(self, event_type: str, labels: Mapping[str, str]) -> list[Endpoint]:
        """The endpoints that want an event, paused and disabled ones included: theirs are kept for later."""
        shape = (event_type, labels.get(TENANT_LABEL))
        if shape not in self._by_shape:
            if len(self._by_shape) >= _SHAPES_KEPT:
                self._by_shape.clear()
            self._by_shape[shape] = [each for each in self.endpoints.values() if _fits(each, *shape)]
        return [each for each in self._by_shape[shape] if each.labels.items() <= labels.items()]


def _name_of(record: Endpoint | EndpointStatus | TenantSecrets) -> str:
    """Whom a record is about by its own word."""
    match record:
        case Endpoint():
            return record.id
        case EndpointStatus():
            return record.endpoint_id
        case TenantSecrets():
            return record.tenant
        case _:
            assert_never(record)


def wants(endpoint: Endpoint, event_type: str, labels: Mapping[str, str]) -> bool:
    """Whether one endpoint wants an event."""
    return _fits(endpoint, event_type, labels.get(TENANT_LABEL)) and endpoint.labels.items() <= labels.items()


def _fits(endpoint: Endpoint, event_type: str, tenant: str | None) -> bool:
    return endpoint.tenant in {None, tenant} and matches_type(endpoint.event_types, event_type)
