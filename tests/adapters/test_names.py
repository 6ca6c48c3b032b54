"""Names to addresses, by the resolver of this machine."""

import socket
from ipaddress import ip_address
from threading import Event
from typing import Any

import pytest

from bridge.adapters.names import SystemResolver


@pytest.fixture
def resolver() -> SystemResolver:
    return SystemResolver()


async def test_all_addresses_of_a_name_are_given_once(resolver: SystemResolver) -> None:
    found = await resolver.addresses("localhost")

    assert set(found) <= {ip_address("127.0.0.1"), ip_address("::1")}
    assert len(set(found)) == len(found) > 0
    resolver.close()


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 64 + ".invalid", "\udc80.invalid"])
async def test_a_name_that_does_not_resolve_has_none(name: str, resolver: SystemResolver) -> None:
    assert await resolver.addresses(name) == []


async def test_a_name_whose_servers_hang_has_none_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Event()

    def hang(*_: object, **__: object) -> list[Any]:
        hanging.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = SystemResolver(patience_s=0.05)

    assert await resolver.addresses("slow.example") == []
    hanging.set()
    resolver.close()


async def test_a_zone_of_an_address_is_kept_for_the_guard_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    info = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%lo", 0, 0, 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: info)

    assert await SystemResolver().addresses("zoned.example") == [ip_address("fe80::1%lo")]
