"""Hostile bytes: good records, spoilt on purpose, by chance that a seed repeats.

A document is spoilt where its structure is (a field of another type, twice, gone, unknown, from another record), then
its bytes may be, which no structure tells. Fragments of JSON that no JSON library would write are `msgspec.Raw`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import msgspec

Document = dict[str, Any]
"""An object of JSON; may hold `msgspec.Raw`."""

Place = tuple[Any, Any]
"""A dict or list, and the key or index of one of its items."""

Log = Sequence[tuple[bytes, bytes | None]]
"""Keys and values of records."""

_A_TIME = re.compile(r"\d{4}-\d\d-\d\dT")

_encode = msgspec.json.Encoder().encode


def _raw(text: str | bytes) -> msgspec.Raw:
    return msgspec.Raw(text.encode() if isinstance(text, str) else text)


NUMBERS: Sequence[Any] = (
    0,
    -1,
    1,
    7,
    255,
    256,
    2**31 - 1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    0.5,
    -0.0,
    1e-320,
    1e15,
    1.8e308 / 2,
    _raw("1e999"),
    _raw("-1e999"),
    _raw("1E+2"),
    _raw("1e-999999999999"),
    _raw("9" * 400),
    _raw("9" * 4301),
    _raw("-" + "9" * 30),
    _raw("1." + "3" * 500),
)
_BROKEN: Sequence[str | bytes] = (
    *("NaN", "Infinity", "-Infinity", "NaN", "Infinity"),
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    "+1",
    ".5",
    "0x10",
    "'x'",
    "undefined",
    "True",
    "",
    "[1,]",
    '{"a":1,}',
    "{a:1}",
    '"\x01"',
    '"\\q"',
    '"\\u12"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b'"\xf4\x90\x80\x80"',
    "/*c*/1",
    '"',
    "[",
    "}",
)
BROKEN: Sequence[Any] = tuple(_raw(text) for text in _BROKEN)
NESTED: Sequence[Any] = (
    _raw("[" * 40 + "]" * 40),
    _raw("[" * 190 + "]" * 190),
    _raw('{"a":' * 150 + "1" + "}" * 150),
    _raw("[" * 700 + "]" * 700),
    _raw('{"id":' * 890 + '"x"' + "}" * 890),
    _raw("[" * 1_100 + "]" * 1_100),
    _raw("[" * 5_000),
)
TIMES: Sequence[str] = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "1600-02-29T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "2026-03-01T12:00:00",
    "2026-03-01T12:00:00Z",
    "2026-03-01T12:00:01.000001+05:45",
    "2026-03-01t12:00:00z",
    "2026-03-01",
    "2026-02-30T12:00:00Z",
    "2026-03-01T24:00:00Z",
    "2026-12-31T23:59:60Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999-23:59",
    "10000-01-01T00:00:00Z",
    "1772366400",
)
TEXTS: Sequence[str] = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1f",
    "\x1fposition",
    "\x1fstatus",
    "line\nbreak\r\n",
    "\u2028",
    "\x85",
    "\ufeff",
    "\ufffd",
    "\u202etxet",
    "💥",
    "é" * 128,
    "a" * 255,
    "a" * 256,
    "ab" * 500,
    "x" * 5_000,
    "%s%n%00",
    "${jndi:x}",
    "..",
    "../../etc/passwd",
    "/",
    "//",
    "?",
    "*",
    "*" * 60,
    "[",
    "null",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "9" * 400,
    "tams.job.success",
    "WAITING",
    "SUCCESS",
    "FAILED",
    *TIMES,
)
EMPTY: Sequence[Any] = (None, True, False, [], {}, [[]], [{}], {"": None}, {"a": {"b": []}})

_KINDS = (NUMBERS, BROKEN, NESTED, TIMES, TEXTS, TEXTS, EMPTY, EMPTY)
_RARE_LENGTH = 200_000


def hostile_text(chance: Random) -> str:
    """A text that somebody has not thought of."""
    if chance.random() < 0.002:
        return chance.choice("a1\n💥*(") * _RARE_LENGTH
    return chance.choice(TEXTS)


def hostile_value(chance: Random) -> Any:
    """A value of JSON that does not belong where it will stand, or a fragment that is none."""
    value = chance.choice(chance.choice(_KINDS))
    return deepcopy(value) if isinstance(value, dict | list) else value


def spoilt_document(chance: Random, documents: Sequence[Document]) -> bytes:
    """One of some good documents, with a few faults; now and then with none."""
    document = deepcopy(chance.choice(documents))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        _spoil(chance, document, documents)
    try:
        written = _encode(document)
    except UnicodeEncodeError:
        written = b"{}"
    return spoilt_bytes(chance, written) if chance.random() < 0.25 else written


def spoilt_bytes(chance: Random, written: bytes, *, others: Sequence[bytes] = ()) -> bytes:
    """The same bytes but for one to four changes that know nothing of what they mean."""
    changed = bytearray(written)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _BYTE_FAULTS[chance.randrange(len(_BYTE_FAULTS))](chance, changed)
    if others and chance.random() < 0.1:
        other = chance.choice(others)
        changed[chance.randint(0, len(changed)) :] = other[chance.randint(0, len(other)) :]
    return bytes(changed)


def spoilt_key(chance: Random, keys: Sequence[bytes]) -> bytes:
    """One of some good keys, as it is or spoilt."""
    key = chance.choice(keys)
    if chance.random() < 0.7:
        return key
    return spoilt_bytes(chance, key) if chance.random() < 0.7 else hostile_text(chance).encode()


def documents(*records: msgspec.Struct) -> list[Document]:
    """Records as JSON that can be spoilt."""
    return [msgspec.json.decode(_encode(record)) for record in records]


def make_log(
    chance: Random, keys: Sequence[bytes], kinds: Sequence[Document], others: Sequence[bytes] = ()
) -> list[tuple[bytes, bytes | None]]:
    """A few records under some of these keys, most of them spoilt."""
    log: list[tuple[bytes, bytes | None]] = []
    for _ in range(chance.randint(1, 4)):
        value: bytes | None = spoilt_document(chance, kinds)
        if chance.random() < 0.1:
            value = chance.choice((None, b"", *others))
        log.append((spoilt_key(chance, keys), value))
    return log


# ------------------------------------------------------------------------------------------------- faults of structure
def _places(document: Any) -> list[Place]:
    """Every item of every dict and list in a document."""
    places: list[Place] = []
    left = [document]
    while left:
        holder = left.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for name, item in items:
            places.append((holder, name))
            if isinstance(item, dict | list):
                left.append(item)
    return places


def _spoil(chance: Random, document: Document, documents: Sequence[Document]) -> None:
    places = _places(document)
    if not places:
        document[chance.choice(TEXTS)] = hostile_value(chance)
        return
    holder, name = chance.choice(places)
    fault = chance.choice(_FAULTS)
    fault(chance, holder, name, documents)


def _replace(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    holder[name] = hostile_value(chance)


def _retype(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    """A number as text, a text as a list of itself, and the like."""
    item = holder[name]
    wrap: Callable[[Any], Any] = chance.choice((lambda it: [it], lambda it: {"value": it}, str, lambda it: [it, 0]))
    holder[name] = wrap(item)


def _vary(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    """A number beside the right one, a text a little longer or shorter."""
    item = holder[name]
    match item:
        case bool():
            holder[name] = not item
        case int() | float():
            holder[name] = chance.choice((-item, item + 1, item - 1, item * 1_000_003, str(item), float(item)))
        case str() if _A_TIME.match(item):
            holder[name] = chance.choice(TIMES)
        case str():
            holder[name] = chance.choice((item + chance.choice(TEXTS), item[:-1], item.upper(), item * 3, item[::-1]))
        case list():
            item.extend(deepcopy(item[:3]))
        case _:
            holder[name] = hostile_value(chance)


def _drop(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    del chance
    del holder[name]


def _add(chance: Random, holder: Any, name: Any, documents: Sequence[Document]) -> None:
    """A field that is not known, or one of another record."""
    del name
    if isinstance(holder, list):
        holder.append(hostile_value(chance))
        return
    other = chance.choice(documents)
    if other and chance.random() < 0.6:
        wanted = chance.choice(list(other))
        holder[wanted] = deepcopy(other[wanted])
    else:
        holder[hostile_text(chance)] = hostile_value(chance)


def _rename(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    if isinstance(holder, dict):
        other = chance.choice((name.upper(), name + "s", hostile_text(chance), *holder))
        holder[other] = holder.pop(name)


def _swap(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    other = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    holder[name], holder[other] = holder[other], holder[name]


def _twice(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    """The same name twice in the object that stands here."""
    item = holder[name]
    if not isinstance(item, dict) or not item:
        holder[name] = hostile_value(chance)
        return
    again = chance.choice(list(item))
    pairs = [(key, value) for key, value in item.items()] + [(again, hostile_value(chance))]
    chance.shuffle(pairs)
    holder[name] = written_pairs(pairs)


def _version(chance: Random, holder: Any, name: Any, _: Sequence[Document]) -> None:
    """Another version of the record."""
    del name
    if isinstance(holder, dict):
        holder["version"] = chance.choice((0, 1, 2, 3, 99, -1, 2**70, "1", None))


_FAULTS: Sequence[Callable[[Random, Any, Any, Sequence[Document]], None]] = (
    _replace,
    _replace,
    _replace,
    _retype,
    _vary,
    _vary,
    _drop,
    _add,
    _add,
    _rename,
    _swap,
    _twice,
    _version,
)


def written_pairs(pairs: Sequence[tuple[str, Any]]) -> msgspec.Raw:
    """An object of JSON with these names in this order, repeated ones included."""
    return msgspec.Raw(b"{" + b",".join(_pair(name, value) for name, value in pairs) + b"}")


def _pair(name: str, value: Any) -> bytes:
    return _encode(name.encode(errors="replace").decode()) + b":" + _encode(value)


# ----------------------------------------------------------------------------------------------------- faults of bytes
_PIECES = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\r\n",
    b"0",
    b"-",
    b"e",
    b"null",
    b"\\u0000",
    b"\\ud83d",
    b"\x1f",
)


def _flip(chance: Random, written: bytearray) -> None:
    if written:
        written[chance.randrange(len(written))] ^= 1 << chance.randrange(8)


def _insert(chance: Random, written: bytearray) -> None:
    at = chance.randint(0, len(written))
    written[at:at] = chance.choice(_PIECES)


def _overwrite(chance: Random, written: bytearray) -> None:
    at = chance.randint(0, len(written))
    piece = chance.choice(_PIECES)
    written[at : at + len(piece)] = piece


def _cut(chance: Random, written: bytearray) -> None:
    at = chance.randint(0, len(written))
    del written[at : at + chance.choice((1, 1, 2, 8, 64))]


def _truncate(chance: Random, written: bytearray) -> None:
    del written[chance.randint(0, len(written)) :]


def _repeat(chance: Random, written: bytearray) -> None:
    at = chance.randint(0, len(written))
    written[at:at] = written[at : at + chance.choice((1, 4, 32, 300))]


_BYTE_FAULTS: Sequence[Callable[[Random, bytearray], None]] = (
    _flip,
    _flip,
    _insert,
    _insert,
    _overwrite,
    _cut,
    _truncate,
    _repeat,
)


def hostile_headers(chance: Random, names: Sequence[str], values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Headers of HTTP: some of these names, each with one of its values, or a spoilt or hostile one."""
    headers = {}
    for name in chance.sample(names, chance.randint(0, min(3, len(names)))):
        known = values.get(name, TEXTS)
        text = chance.choice(known)
        if chance.random() < 0.4:
            text = spoilt_bytes(chance, text.encode()).decode("latin-1")
        headers[name] = text
    return headers
