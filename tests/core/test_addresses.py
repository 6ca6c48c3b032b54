"""No webhook gets to where it must not: a table of addresses and tricks, and properties around it."""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bridge.core.addresses import DEFAULT_PORTS, Address, AddressPolicy, ForbiddenTarget, Target, is_public

ANY_PORT = frozenset(range(1, 65_536))
ONLY_ADDRESSES_COUNT = AddressPolicy(allow_http=True, allowed_ports=ANY_PORT)
"""Refuses nothing but addresses and what cannot be read, so that a refusal below has no other cause."""

PUBLIC = ip_address("9.9.9.9")


def words(text: str) -> list[str]:
    return text.split()


NEVER = words("""
    0.0.0.0  0.0.0.1  0.255.255.255  10.0.0.0  10.0.0.5  10.255.255.255  100.64.0.1  100.100.100.200  100.127.255.255
    127.0.0.0  127.0.0.1  127.0.0.2  127.255.255.255  168.63.129.16  169.254.0.1  169.254.169.254  169.254.170.2
    169.254.255.255  172.16.0.0  172.17.0.1  172.31.255.255  192.0.0.1  192.0.0.8  192.0.0.170  192.0.0.192  192.0.0.255
    192.0.2.1  192.0.2.255  192.88.99.1  192.88.99.255  192.168.0.0  192.168.1.1  192.168.255.255  198.18.0.1
    198.19.255.255  198.51.100.1  203.0.113.1  203.0.113.255  224.0.0.0  224.0.0.1  233.252.0.1  239.255.255.250
    240.0.0.1  250.1.2.3  255.255.255.254  255.255.255.255
    ::  ::1  ::2  ::ffff  ::127.0.0.1  ::10.0.0.5  ::169.254.169.254  ::7f00:1
    ::ffff:127.0.0.1  ::ffff:10.0.0.5  ::ffff:169.254.169.254  ::ffff:192.168.1.1  ::ffff:0.0.0.0  ::ffff:7f00:1
    0:0:0:0:0:ffff:127.0.0.1  ::FFFF:A9FE:A9FE  ::ffff:224.0.0.1  ::ffff:255.255.255.255  ::ffff:100.64.0.1
    ::ffff:0:127.0.0.1  ::ffff:0:10.0.0.5  ::1:0:0:0
    64:ff9b::127.0.0.1  64:ff9b::10.0.0.5  64:ff9b::a9fe:a9fe  64:ff9b::  64:ff9b::192.168.0.1  64:ff9b::224.0.0.1
    64:ff9b:1::  64:ff9b:1::1  64:ff9b:1::9.9.9.9  64:ff9b:1:ffff::7f00:1  64:ff9b:0:1::9.9.9.9  64:ff9b:2::9.9.9.9
    100::  100::1  100:0:0:1::1  200::1  400::1  1000::1  1fff:ffff::1
    2001::1  2001:0:7f00:1::f6f6:f6f6  2001:0:909:909::80ff:fffe  2001:0:909:909:8000:63bf:5601:5601
    2001:0:a00:5::f6f6:f6f6  2001:1::1  2001:1::2  2001:2::1  2001:3::1  2001:4:112::1  2001:10::1  2001:20::1
    2001:30::1  2001:1ff:ffff::1  2001:db8::1  2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
    2002:7f00:1::  2002:7f00:1::1  2002:a00:5::1  2002:a9fe:a9fe::  2002:c0a8:101::1  2002:e000:1::  2002::
    2002:ac10:1:ffff:ffff:ffff:ffff:ffff  3fff::1  3fff:fff:ffff::1  4000::1  5f00::1  5f00:ffff::1  6000::1  8000::1
    a000::1  c000::1  e000::1  f000::1  fc00::1  fd00::1  fd00:ec2::254  fdff:ffff::1  fe00::1  fe80::  fe80::1
    fe80::a9fe:a9fe  febf:ffff::1  fec0::1  feff:ffff::1  ff00::  ff01::1  ff02::1  ff02::fb  ff05::2  ff0e::1
    ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
""")

ODD_ADDRESSES = words("""
    2130706433  02130706433  017700000001  0x7f000001  0X7F000001  0x7F.1  127.1  127.0.1  127.00.0.1
    127.0.0.01  0177.0.0.1  0177.1  0x7f.0.0.1  0x7f.0x0.0x0.0x1  0177.0.0x1  00000177.0.0.1  0.0  0x0  0x  0
    00  1  127.0.0.1.  127.0.0.1..  .127.0.0.1  127..0.1  127.0.0.0x1  127.0.0.256  127.0.0.1.1  300.0.0.1
    4294967295  99999999999  2852039166  0xa9fea9fe  0251.0376.0251.0376  169.254.43518  169.16689662
    0xA9.0xFE.0xA9.0xFE  a.127.0.0.0x1  3232235777  0xc0a80101  192.168.257  10.5  012.0.0.5  0xa.5  0x0a000005
    167772165  134744072  0x08080808  8.8.2056  010.010.010.010
""")

ODD_DIGITS = [
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",  # 127.0.0.1 in circles
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",  # in wide digits
    "\uff12\uff11\uff13\uff10\uff17\uff10\uff16\uff14\uff13\uff13",
    "\uff10\uff58\uff17\uff46.1",
    "127\u30020\u30020\u30021",  # with full stops of another script
    "\u0661\u0662\u0667.\u0660.\u0660.\u0661",  # in Arabic digits
]

TRICKS = {
    # who is the host, and who the user
    "user": "https://user@9.9.9.9/",
    "user and password": "https://user:secret@9.9.9.9/",
    "password only": "https://:secret@9.9.9.9/",
    "empty user": "https://@9.9.9.9/",
    "public user, private host": "https://9.9.9.9@127.0.0.1/",
    "private user, public host": "https://127.0.0.1@9.9.9.9/",
    "two hosts": "https://9.9.9.9@10.0.0.5@8.8.8.8/",
    "port as password": "https://hooks.example:443@127.0.0.1/",
    "backslash before the at": "https://hooks.example\\@127.0.0.1/",
    "backslash for a slash": "https:\\\\127.0.0.1\\",
    "backslash in the host": "https://127.0.0.1\\.hooks.example/",
    "backslash in the path": "https://hooks.example/\\..\\",
    "fragment before the at": "https://hooks.example#@127.0.0.1/",
    "fragment": "https://hooks.example/a#b",
    "empty fragment": "https://hooks.example/#",
    "semicolon": "https://hooks.example;127.0.0.1/",
    "comma": "https://hooks.example,127.0.0.1/",
    "brace": "https://{127.0.0.1}/",
    "quote": "https://'127.0.0.1'/",
    # what resolvers and readers of URLs strip or decode
    "space before": " https://127.0.0.1/",
    "space after": "https://127.0.0.1/ ",
    "space in the host": "https://127.0.0.1 hooks.example/",
    "space in the path": "https://hooks.example/a b",
    "tab in the scheme": "ht\ttps://127.0.0.1/",
    "tab in the host": "https://127.0.0\t.1/",
    "newline in the host": "https://127.0.0.1\n.hooks.example/",
    "newline after": "https://hooks.example/\n",
    "header in the path": "https://hooks.example/ HTTP/1.1\r\nHost: kafka\r\n\r\n",
    "null": "https://hooks.example\x00.127.0.0.1/",
    "no-break space": "https://hooks.example\u00a0/",
    "wide space": "https://hooks.example\u3000/",
    "zero width space": "https://local\u200bhost/",
    "zero width joiner": "https://a\u200dhost/",
    "soft hyphen": "https://local\u00adhost/",
    "right to left": "https://\u202ehost/",
    "lone surrogate": "https://\ud800.example/",
    "percent-encoded dot": "https://127%2e0.0.1/",
    "percent-encoded host": "https://%31%32%37.0.0.1/",
    "percent-encoded slash": "https://hooks.example%2f@127.0.0.1/",
    "percent-encoded null": "https://127.0.0.1%00.hooks.example/",
    "letter beyond ASCII in the path": "https://hooks.example/é",
    "letter beyond ASCII in the query": "https://hooks.example/?é",
    "angle in the path": "https://hooks.example/<a>",
    "pipe in the query": "https://hooks.example/?a|b",
    # IPv6 in brackets, or not
    "IPv6 without brackets": "https://::1/",
    "IPv6 with a zone": "https://[fe80::1%25eth0]/",
    "IPv6 with a bare zone": "https://[fe80::1%eth0]/",
    "public IPv6 with a zone": "https://[2620:fe::fe%251]/",
    "IPv4 in brackets": "https://[127.0.0.1]/",
    "public IPv4 in brackets": "https://[9.9.9.9]/",
    "name in brackets": "https://[hooks.example]/",
    "future address": "https://[v1.9.9.9.9]/",
    "empty brackets": "https://[]/",
    "open bracket": "https://[::1/",
    "close bracket": "https://::1]/",
    "text before the bracket": "https://a[::1]/",
    "text after the bracket": "https://[2620:fe::fe]a/",
    "two brackets": "https://[[::1]]/",
    "IPv6 with too many groups": "https://[1:2:3:4:5:6:7:8:9]/",
    # ports
    "port zero": "https://hooks.example:0/",
    "port too high": "https://hooks.example:65536/",
    "endless port": "https://hooks.example:00000000443/",
    "no port": "https://hooks.example:/",
    "negative port": "https://hooks.example:-443/",
    "port with a sign": "https://hooks.example:+443/",
    "port with an underscore": "https://hooks.example:4_43/",
    "port in other digits": "https://hooks.example:\uff14\uff14\uff13/",
    "port a name": "https://hooks.example:https/",
    "two ports": "https://hooks.example:443:22/",
    # schemes and relative URLs
    "empty": "",
    "no scheme": "hooks.example/a",
    "scheme of the page": "//hooks.example/",
    "path": "/a",
    "one slash": "https:/hooks.example/",
    "no slash": "https:hooks.example",
    "no host": "https://",
    "no host, but a path": "https:///hooks.example/",
    "no host, but a port": "https://:443/",
    "no host, but a query": "https://?hooks.example",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict": "dict://127.0.0.1:11211/stats",
    "ftp": "ftp://hooks.example/",
    "data": "data:text/plain,hello",
    "javascript": "javascript:alert(1)",
    "unix socket": "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "web socket": "wss://hooks.example/",
    "scheme with a long s": "http\u017f://hooks.example/",
    "scheme twice": "https://https://hooks.example/",
    "URL: before": "URL:https://hooks.example/",
    # names that are none
    "dot": "https://./",
    "dots": "https://../",
    "empty label": "https://hooks..example/",
    "dot before": "https://.hooks.example/",
    "two dots after": "https://hooks.example../",
    "dash before": "https://-hooks.example/",
    "dash after": "https://hooks-.example/",
    "star": "https://*.example/",
    "label too long": f"https://{'a' * 64}.example/",
    "name too long": f"https://{'a' * 62}.{'b' * 62}.{'c' * 62}.{'d' * 62}.example/",
    "URL too long": f"https://hooks.example/{'a' * 2_048}",
    "no valid international name": "https://-é-.example/",
    "slash-like letter": "https://hooks.example\u2044@127.0.0.1/",
    "account-of letter": "https://hooks\u2100.example/",
    "dotted digit": "https://127\u2488\u2489.example/",
}

POSITIVE = {
    "https://hooks.example/": "https://hooks.example:443/",
    "https://hooks.example": "https://hooks.example:443/",
    "HTTPS://Hooks.Example/Path": "https://hooks.example:443/Path",
    "http://hooks.example/": "http://hooks.example:80/",
    "https://hooks.example:8443/a?b=c": "https://hooks.example:8443/a?b=c",
    "https://hooks.example?b=c": "https://hooks.example:443/?b=c",
    "https://hooks.example./": "https://hooks.example.:443/",
    "https://my_service/": "https://my_service:443/",
    "https://xn--r8jz45g.jp/": "https://xn--r8jz45g.jp:443/",
    "https://例え.jp/": "https://xn--r8jz45g.jp:443/",
    "https://straße.example/": "https://xn--strae-oqa.example:443/",
    "https://127.0.0.1.nip.example/": "https://127.0.0.1.nip.example:443/",
    "https://3com.example/": "https://3com.example:443/",
    "https://1e100.net/": "https://1e100.net:443/",
    "https://hooks.example/a/../b//c;d=1?sig=a%2Bb%3D&x=@/:?~!$'()*+,[]": (
        "https://hooks.example:443/a/../b//c;d=1?sig=a%2Bb%3D&x=@/:?~!$'()*+,[]"
    ),
    f"https://hooks.example/{'a' * 2_026}": f"https://hooks.example:443/{'a' * 2_026}",
    "https://9.9.9.9/": "https://9.9.9.9:443/",
    "https://1.1.1.1:8443/": "https://1.1.1.1:8443/",
    "https://[2620:FE::FE]/": "https://[2620:fe::fe]:443/",
    "https://[2620:fe:0:0:0:0:0:fe]:8443/a": "https://[2620:fe::fe]:8443/a",
    "https://[::ffff:9.9.9.9]/": "https://[::ffff:909:909]:443/",
}

PUBLIC_ADDRESSES = words("""
    1.0.0.1  1.1.1.1  8.8.8.8  9.9.9.9  9.255.255.255  11.0.0.0  100.63.255.255  100.128.0.0  126.255.255.255  128.0.0.1
    168.63.129.15  168.63.129.17  169.253.255.255  169.255.0.0  172.15.255.255  172.32.0.0  192.0.1.0  192.0.3.0
    192.88.98.255  192.88.100.0  192.167.255.255  192.169.0.0  198.17.255.255  198.20.0.0  198.51.99.255  198.51.101.0
    203.0.112.255  203.0.114.0  223.255.255.255
    2000::1  2001:200::1  2001:4860:4860::8888  2606:4700:4700::1111  2620:fe::fe  2a00:1450::1  3fff:1000::1  3ffe::1
    ::9.9.9.9  ::ffff:9.9.9.9  ::ffff:0:9.9.9.9  64:ff9b::9.9.9.9  2002:909:909::1  2001:0:909:909::f6f6:f6f6
""")


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def named(scheme: str = "https", port: int = 443) -> Target:
    return Target(scheme=scheme, host="hooks.example", port=port, address=None, resource="/")


def refusal(policy: AddressPolicy, url: str) -> str:
    with pytest.raises(ForbiddenTarget) as raised:
        policy.check_url(url)
    return str(raised.value)


# ---------------------------------------------------------------------- the table
def test_the_table_is_as_long_as_was_promised() -> None:
    assert len({*NEVER, *ODD_ADDRESSES, *ODD_DIGITS, *TRICKS.values()}) >= 150


@pytest.mark.parametrize("address", NEVER)
def test_an_address_that_is_not_public_is_never_reached(address: str) -> None:
    """Neither written in a URL, nor as one of those that a name resolves to."""
    parsed = ip_address(address)

    assert not is_public(parsed)
    with pytest.raises(ForbiddenTarget):
        ONLY_ADDRESSES_COUNT.check_url(f"https://{in_url(address)}/")
    for resolved in ([parsed], [PUBLIC, parsed], [parsed, PUBLIC]):
        with pytest.raises(ForbiddenTarget):
            ONLY_ADDRESSES_COUNT.check_addresses(named(), resolved)


@pytest.mark.parametrize("host", ODD_ADDRESSES + ODD_DIGITS)
def test_an_address_in_a_form_that_readers_disagree_on_is_refused(host: str) -> None:
    refusal(ONLY_ADDRESSES_COUNT, f"https://{host}/")
    refusal(ONLY_ADDRESSES_COUNT, f"http://{host}:8080/a?b")


@pytest.mark.parametrize("url", [pytest.param(url, id=name) for name, url in TRICKS.items()])
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    refusal(ONLY_ADDRESSES_COUNT, url)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_reached(address: str) -> None:
    parsed = ip_address(address)

    assert is_public(parsed)
    assert AddressPolicy().check_url(f"https://{in_url(address)}/").address == parsed
    AddressPolicy().check_addresses(named(), [parsed, PUBLIC])


@pytest.mark.parametrize(("url", "means"), POSITIVE.items())
def test_an_honest_url_is_taken_apart_and_keeps_path_and_query_as_written(url: str, means: str) -> None:
    target = AddressPolicy(allow_http=True).check_url(url)

    assert target.url == means
    assert urlsplit(means).hostname == target.host
    assert urlsplit(means).port == target.port


def test_a_name_of_two_hundred_and_fifty_three_characters_is_a_name() -> None:
    name = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"

    assert AddressPolicy().check_url(f"https://{name}/").host == name


# ---------------------------------------------------------------------- what a name resolves to
@pytest.mark.parametrize("bad", ["127.0.0.1", "::1", "::ffff:10.0.0.5", "64:ff9b::a9fe:a9fe"])
@pytest.mark.parametrize("place", range(4))
def test_one_bad_address_among_many_refuses_the_name(bad: str, place: int) -> None:
    addresses: list[Address] = [ip_address(good) for good in ("9.9.9.9", "2620:fe::fe", "1.1.1.1")]
    addresses.insert(place, ip_address(bad))

    with pytest.raises(ForbiddenTarget):
        ONLY_ADDRESSES_COUNT.check_addresses(named(), addresses)


def test_a_name_without_addresses_is_refused() -> None:
    with pytest.raises(ForbiddenTarget, match=r"hooks\.example has no address"):
        ONLY_ADDRESSES_COUNT.check_addresses(named(), [])


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2620:fe::fe%1", "::ffff:9.9.9.9%lo"])
def test_an_address_with_a_zone_is_refused_even_where_its_network_is_allowed(address: str) -> None:
    everything = AddressPolicy(allowed_networks=(IPv6Network("::/0"), IPv4Network("0.0.0.0/0")))

    assert not is_public(ip_address(address))
    with pytest.raises(ForbiddenTarget, match="bound to a zone"):
        everything.check_addresses(named(), [ip_address(address)])


# ---------------------------------------------------------------------- ports and plain http
def test_only_the_ports_of_web_servers_may_be_used() -> None:
    policy = AddressPolicy()

    allowed = [port for port in range(1, 65_536) if passes(policy, f"https://9.9.9.9:{port}/")]

    assert set(allowed) == DEFAULT_PORTS == {80, 443, 8080, 8443}
    assert "port 22 is not allowed: webhooks may use 80, 443, 8080, 8443" in refusal(
        policy, "https://hooks.example:22/"
    )


def test_the_operator_may_choose_other_ports() -> None:
    policy = AddressPolicy(allowed_ports=frozenset({9443}))

    assert policy.check_url("https://hooks.example:9443/").port == 9443
    refusal(policy, "https://hooks.example/")


def test_plain_http_is_refused_unless_the_operator_allows_it() -> None:
    assert "plain http is not allowed: use https" in refusal(AddressPolicy(), "http://hooks.example/")
    assert "plain http" in refusal(AddressPolicy(), "http://9.9.9.9/")
    assert AddressPolicy(allow_http=True).check_url("http://hooks.example/").scheme == "http"


# ---------------------------------------------------------------------- networks the operator allows
HOME = AddressPolicy(allowed_networks=(IPv4Network("127.0.0.2/32"), IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")))


@pytest.mark.parametrize("host", ["127.0.0.2", "10.1.2.3", "[fd00::7]"])
@pytest.mark.parametrize("port", [1, 80, 9092, 65_535])
def test_an_allowed_network_is_reached_by_any_port_and_by_plain_http(host: str, port: int) -> None:
    assert HOME.check_url(f"http://{host}:{port}/").port == port


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.3", "11.0.0.1:81", "192.168.0.1", "[::ffff:10.1.2.3]", "[fc00::7]"]
)
def test_allowing_one_network_allows_no_other(host: str) -> None:
    refusal(HOME, f"https://{host}/")


def test_a_name_may_use_any_port_and_plain_http_if_all_its_addresses_are_in_allowed_networks() -> None:
    """It cannot be known before it is resolved, so the URL itself passes."""
    target = HOME.check_url("http://receiver.internal:9000/")

    HOME.check_addresses(target, [ip_address("10.0.0.5"), ip_address("fd00::5")])
    with pytest.raises(ForbiddenTarget, match="plain http"):
        HOME.check_addresses(target, [ip_address("10.0.0.5"), PUBLIC])
    with pytest.raises(ForbiddenTarget, match="port 9000"):
        HOME.check_addresses(named(port=9000), [ip_address("10.0.0.5"), PUBLIC])
    with pytest.raises(ForbiddenTarget, match="loopback"):
        HOME.check_addresses(target, [ip_address("10.0.0.5"), ip_address("127.0.0.1")])


# ---------------------------------------------------------------------- what people are told
def test_a_refusal_says_what_is_wrong_with_the_address() -> None:
    assert refusal(AddressPolicy(), "https://10.0.0.5/") == "the address 10.0.0.5 is private (10.0.0.0/8)"
    assert refusal(AddressPolicy(), "https://[::ffff:a00:5]/") == "the address ::ffff:a00:5 is private (10.0.0.0/8)"


def test_a_refused_name_does_not_give_away_its_address() -> None:
    """Or anybody could read the names of the operator's own network through their webhooks."""
    with pytest.raises(ForbiddenTarget) as raised:
        AddressPolicy().check_addresses(named(), [ip_address("10.20.30.40")])

    assert str(raised.value) == "the address of hooks.example is private (10.0.0.0/8)"


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.5/t0ken?t0ken",
        "https://hooks.example:22/t0ken?t0ken",
        "http://hooks.example/t0ken?t0ken",
        "https://t0ken:t0ken@hooks.example/",
        "https://hooks.example/t0ken#t0ken",
        "https://hooks.example/t0ken<",
        "ftp://hooks.example/t0ken",
        f"https://hooks.example/t0ken{'a' * 2_048}",
    ],
)
def test_a_refusal_shows_no_secret_of_the_url(url: str) -> None:
    assert "t0ken" not in refusal(AddressPolicy(), url)


# ---------------------------------------------------------------------- properties
def passes(policy: AddressPolicy, url: str) -> bool:
    try:
        policy.check_url(url)
    except ForbiddenTarget:
        return False
    return True


FORMS: dict[str, Callable[[int], str]] = {
    "decimal": str,
    "hexadecimal": hex,
    "HEXADECIMAL": lambda number: f"0X{number:08X}",
    "octal": lambda number: f"0{number:o}",
    "long octal": lambda number: f"000{number:o}",
}


def as_numbers(value: int, forms: Sequence[str]) -> str:
    """An IPv4 address in as many numbers as there are forms: all but the last stand for one byte."""
    octets = value.to_bytes(4)
    parts = [*octets[: len(forms) - 1], int.from_bytes(octets[len(forms) - 1 :])]
    return ".".join(FORMS[form](part) for form, part in zip(forms, parts, strict=True))


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4))
@example(0x7F000001, ["decimal"])
@example(0x09090909, ["decimal"] * 4)
def test_what_a_resolver_reads_as_an_address_passes_only_in_its_usual_form(value: int, forms: list[str]) -> None:
    written = as_numbers(value, forms)
    assert socket.inet_aton(written) == value.to_bytes(4)

    if passes(ONLY_ADDRESSES_COUNT, f"https://{written}/"):
        assert written == str(IPv4Address(value))
        assert is_public(IPv4Address(value))


@given(st.text("0123456789abcdefxX.", min_size=1, max_size=20))
@example("0x7f.1")
def test_no_text_that_a_resolver_reads_as_an_address_passes_as_a_name(host: str) -> None:
    if passes(ONLY_ADDRESSES_COUNT, f"https://{host}/"):
        address = ONLY_ADDRESSES_COUNT.check_url(f"https://{host}/").address
        assert resolver_reads(host) == address


def resolver_reads(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_the_standard_library_knows_no_private_ipv4_address_that_we_do_not(address: IPv4Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast)


@given(st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address))
def test_the_standard_library_knows_no_private_ipv6_address_that_we_do_not(address: IPv6Address) -> None:
    assert not is_public(address) or address.is_global or address.teredo


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_outside_of_what_is_handed_out_only_wrapped_ipv4_is_public(address: IPv6Address) -> None:
    assume(address not in IPv6Network("2000::/3"))

    wrapping = ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
    assert not is_public(address) or any(address in IPv6Network(network) for network in wrapping)


@given(
    st.one_of(
        st.sampled_from([ip for ip in NEVER if ":" not in ip]).map(IPv4Address),
        st.integers(0, 2**32 - 1).map(IPv4Address),
    )
)
def test_a_wrapped_address_is_as_public_as_what_it_wraps(inner: IPv4Address) -> None:
    value, public = int(inner), is_public(inner)
    good = int(IPv4Address("9.9.9.9"))

    assume(value > 1)  # :: and ::1 are themselves
    assert is_public(IPv6Address(value)) is public
    assert is_public(IPv6Address(0xFFFF << 32 | value)) is public
    assert is_public(IPv6Address(0xFFFF << 48 | value)) is public
    assert is_public(IPv6Address(0x64FF9B << 96 | value)) is public
    assert is_public(IPv6Address(0x2002 << 112 | value << 80 | 7)) is public
    assert is_public(IPv6Address(0x20010000 << 96 | value << 64 | good ^ 0xFFFFFFFF)) is public
    assert is_public(IPv6Address(0x20010000 << 96 | good << 64 | value ^ 0xFFFFFFFF)) is public


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://", "https://hooks.example", "https://["]))
def test_any_text_is_either_refused_or_understood_in_one_way(text: str, before: str) -> None:
    """What passes, put together and read again, by us or by others, still means the same."""
    try:
        target = ONLY_ADDRESSES_COUNT.check_url(before + text)
    except ForbiddenTarget:
        return

    others = urlsplit(target.url)
    assert (others.scheme, others.hostname, others.port, others.username) == (
        target.scheme,
        target.host,
        target.port,
        None,
    )
    assert ONLY_ADDRESSES_COUNT.check_url(target.url) == target
