"""Where a webhook may go: the table of addresses it may never reach, and what its URL may look like.

A URL is checked when it is registered and again when it is sent to. A name in it is judged by the addresses it resolves
to, at every dial; one bad address among them is enough to refuse.

`ipaddress.is_global` is not asked: it lets several of these pass (stack.md, "HTTP client").
Source: webhooks.md, "Addresses a webhook may never reach (SSRF)".
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS: Final = frozenset({80, 443, 8080, 8443})
"""Ports of public addresses that webhooks may use."""

URL_LENGTH_MAX: Final = 2048

_NEVER_IPV4: Final = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),  # carrier-grade NAT; also some clouds' metadata
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud-internal"),  # Azure's platform, reachable from every virtual machine there
        ("169.254.0.0/16", "link-local"),  # also most clouds' metadata
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),  # the broadcast address is the last of them
    )
)

_Wrapped = tuple[tuple[int, int], ...]
"""IPv4 addresses inside an IPv6 address: how far from its right end, in bits, and what they are xor-ed with."""

_LAST: Final[_Wrapped] = ((0, 0),)
_TEREDO: Final[_Wrapped] = ((64, 0), (0, 0xFFFF_FFFF))  # the server; the client, written inverted (RFC 4380)

_IPV6_RULES: Final = tuple(
    (IPv6Network(network), rule)
    for network, rule in (
        # The first network that holds an address decides: by a word, or by the IPv4 addresses at these places in it.
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", _LAST),  # IPv4-compatible
        ("::ffff:0:0/96", _LAST),  # IPv4-mapped
        ("::ffff:0:0:0/96", _LAST),  # IPv4-translated
        ("64:ff9b::/96", _LAST),  # NAT64
        ("64:ff9b:1::/48", "for translation"),  # NAT64 of local use
        ("100::/64", "a black hole"),
        ("2001::/32", _TEREDO),
        ("2001::/23", "reserved"),  # protocol assignments: benchmarking, ORCHID, anycast of routers
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", ((80, 0),)),  # 6to4
        ("3fff::/20", "for documentation"),
        ("2000::/3", None),  # all there is of public addresses
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("::/0", "reserved"),
    )
)

_SCHEME: Final = re.compile(r"(https?)://", re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?P<port>:.*)?")
_RESOURCE: Final = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r":[0-9]{1,5}")
_NAME_LENGTH_MAX: Final = 253
_PORT_MAX: Final = 65_535


class ForbiddenTarget(ValueError):
    """A webhook may not go there; the message says why, for people, and shows neither path nor query of the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that was taken apart and may be dialled if its addresses may.

    Args:
        scheme: `https` or `http`.
        host: a name in ASCII and lower case, or an address in its usual form, IPv6 without brackets.
        port: 1 to 65535.
        address: what `host` is, unless it is a name.
        resource: path and query as written; begins with a slash.
    """

    scheme: str
    host: str
    port: int
    address: Address | None
    resource: str

    @property
    def url(self) -> str:
        """The URL put together anew, so that no other reader of URLs can understand it differently."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """What the operator lets webhooks reach.

    Args:
        allowed_networks: these may be reached whatever else is said here, by any port and by plain http.
        allowed_ports: ports of all other addresses.
        allow_http: whether they may be reached by plain http.
    """

    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] = DEFAULT_PORTS
    allow_http: bool = False

    def check_url(self, url: str) -> Target:
        """Take a URL apart; one whose host is a name has yet to pass `check_addresses`.

        Raises:
            ForbiddenTarget: no webhook may go there, or it cannot be read without doubt.
        """
        target = _read_url(url)
        if target.address is not None:
            self.check_addresses(target, (target.address,))
        elif not self.allowed_networks:
            self._check_scheme_and_port(target)  # no address could make them right
        return target

    def check_addresses(self, target: Target, addresses: Collection[Address]) -> None:
        """Judge all addresses that a target resolves to.

        Raises:
            ForbiddenTarget: one of them may not be reached, or not in this way, or there is none.
        """
        if not addresses:
            raise ForbiddenTarget(f"{target.host} has no address")
        for address in addresses:
            if self._allows(address):
                continue
            found = _why_never(address)
            if found is not None:
                of = "" if address == target.address else "of "
                raise ForbiddenTarget(f"the address {of}{target.host} is {found}")
            self._check_scheme_and_port(target)

    def _allows(self, address: Address) -> bool:
        return not _is_zoned(address) and any(address in network for network in self.allowed_networks)

    def _check_scheme_and_port(self, target: Target) -> None:
        if target.scheme == "http" and not self.allow_http:
            raise ForbiddenTarget("plain http is not allowed: use https")
        if target.port not in self.allowed_ports:
            ports = ", ".join(str(port) for port in sorted(self.allowed_ports))
            raise ForbiddenTarget(f"port {target.port} is not allowed: webhooks may use {ports}")


def is_public(address: Address) -> bool:
    """Whether an address can be reached by everybody, and is no detour to one that cannot."""
    return _why_never(address) is None


def _is_zoned(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.scope_id is not None


def _why_never(address: Address) -> str | None:
    """What an address is that a webhook may never reach; None for a public one."""
    if _is_zoned(address):
        return "bound to a zone"
    if isinstance(address, IPv4Address):
        return next((f"{kind} ({network})" for network, kind in _NEVER_IPV4 if address in network), None)
    network, rule = next((network, rule) for network, rule in _IPV6_RULES if address in network)
    if isinstance(rule, tuple):
        wrapped = (IPv4Address((int(address) >> place & 0xFFFF_FFFF) ^ mask) for place, mask in rule)
        return next((found for inner in wrapped if (found := _why_never(inner))), None)
    return None if rule is None else f"{rule} ({network})"


def _read_url(url: str) -> Target:
    if len(url) > URL_LENGTH_MAX:
        raise ForbiddenTarget(f"the URL is longer than {URL_LENGTH_MAX} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ForbiddenTarget("the URL holds a space, a backslash or a character that cannot be seen")
    if "#" in url:
        raise ForbiddenTarget("the URL has a fragment (#…), which is never sent: leave it out")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ForbiddenTarget("the URL is not absolute: it must begin with https://")
    authority, resource = _split(url[scheme.end() :])
    if not _RESOURCE.fullmatch(resource):
        raise ForbiddenTarget("path or query of the URL hold a character that must be percent-encoded")
    host, address, port = _read_authority(authority)
    name = scheme[1].lower()
    standard = 443 if name == "https" else 80
    return Target(scheme=name, host=host, port=port or standard, address=address, resource=resource)


def _split(rest: str) -> tuple[str, str]:
    """Authority and resource."""
    end = next((place for place, character in enumerate(rest) if character in "/?"), len(rest))
    resource = rest[end:]
    return rest[:end], resource if resource.startswith("/") else f"/{resource}"


def _read_authority(authority: str) -> tuple[str, Address | None, int | None]:
    if "@" in authority:
        raise ForbiddenTarget("the URL names a user: put credentials into a header")
    if "%" in authority:
        raise ForbiddenTarget("the URL's host holds a zone or percent-encoding")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ForbiddenTarget("the URL's host cannot be read; an IPv6 address stands in brackets")
    port = None if parts["port"] is None else _read_port(parts["port"])
    if parts["ipv6"] is not None:
        try:
            ipv6 = IPv6Address(parts["ipv6"])
        except ValueError:
            raise ForbiddenTarget("the URL's host is no IPv6 address, though it stands in brackets") from None
        return str(ipv6), ipv6, port
    return *_read_name(parts["name"]), port


def _read_port(written: str) -> int:
    port = int(written[1:]) if _PORT.fullmatch(written) else 0
    if not 1 <= port <= _PORT_MAX:
        raise ForbiddenTarget(f"the URL's port is no number from 1 to {_PORT_MAX}")
    return port


def _read_name(written: str) -> tuple[str, IPv4Address | None]:
    """A host without brackets: in ASCII and lower case, and which address it is, if it is one."""
    if not written:
        raise ForbiddenTarget("the URL names no host")
    host = _to_ascii(written).lower()
    labels = host.removesuffix(".").split(".")
    if len(host) > _NAME_LENGTH_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenTarget("the URL's host is no name that can be looked up")
    if not _NUMBER.fullmatch(labels[-1]):
        return host, None
    try:
        return host, IPv4Address(host)
    except ValueError:
        # Resolvers take 127.1, 0x7f.1, 2130706433 and 0177.0.0.1 for addresses, and do not agree on which.
        raise ForbiddenTarget("the URL's host ends in a number: write an address as four decimal numbers") from None


def _to_ascii(written: str) -> str:
    if written.isascii():
        return written
    try:
        return idna.encode(written, uts46=True, std3_rules=True).decode()
    except UnicodeError:  # all of idna's errors are
        raise ForbiddenTarget("the URL's host is no valid international name") from None
