"""The options that commands share, and how what people type into options is read."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from bridge.adapters.clock import SystemClock
from bridge.errors import CannotStart
from bridge.settings import Settings, read_settings

KafkaOption = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Brokers; beats BRIDGE_KAFKA__BOOTSTRAP_SERVERS.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document a line on standard output.")]
UrlOption = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="Where the API answers; beats BRIDGE_API__URL.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="API key; beats BRIDGE_API__KEY, where other users cannot see it."),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Show so many at the most; all if not given.")]
SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Not older: 2026-11-24T10:15:04Z, or so long ago: 90s, 2h, 3d.")
]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Not newer; written as for --since.")]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


def settings_with(kafka: str | None) -> Settings:
    """The settings in force, with the brokers of the command line.

    Raises:
        CannotStart: a setting is wrong.
    """
    return read_settings(**({"kafka": {"bootstrap_servers": kafka}} if kafka else {}))


def text_of(file: Path) -> str:
    """A file as text.

    Raises:
        CannotStart: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        message = f"{file} cannot be read: {reason}"
        raise CannotStart(message) from None


def pairs(given: Sequence[str] | None, *, option: str = "--label", what: str = "a label") -> dict[str, str] | None:
    """What was given as NAME=VALUE, repeatedly; None if the option was not used.

    Raises:
        CannotStart: one is written otherwise; the message does not repeat what follows the name, which may be secret.
    """
    if not given:
        return None
    parts = [pair.partition("=") for pair in given]
    wrong = [name for name, equals, _ in parts if not (name and equals)]
    if wrong:
        message = f"{option} {wrong[0]!r}: {what} is NAME=VALUE"
        raise CannotStart(message)
    return {name: value for name, _, value in parts}


def seconds(text: str | None, *, option: str) -> float | None:
    """A length of time in seconds: `90`, `90s`, `5m`, `2h`, `3d`, `1w`; None if the option was not used.

    Raises:
        CannotStart: it is written otherwise.
    """
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        message = f"{option} {text!r}: a length of time is a number of seconds, or 90s, 5m, 2h, 3d, 1w"
        raise CannotStart(message)
    return float(found[1]) * _UNITS[found[2] or "s"]


def moment(text: str | None, *, option: str, now: datetime | None = None) -> str | None:
    """A point in time as the API reads it (RFC 3339, UTC); None if the option was not used.

    Args:
        text: RFC 3339, or so long ago: `90s`, `5m`, `2h`, `3d`, `1w`.
        option: its name, for messages.
        now: the present, aware; the machine's clock if not given.

    Raises:
        CannotStart: it is written otherwise, or without an offset from UTC.
    """
    if text is None:
        return None
    try:
        ago = _DURATION.fullmatch(text)
        if ago is not None and ago[2]:
            time = (now or SystemClock().now()) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        else:
            time = datetime.fromisoformat(text.upper())
        if time.tzinfo is not None:
            return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        pass
    message = f"{option} {text!r}: a time is written as 2026-11-24T10:15:04Z, or as so long ago: 90s, 5m, 2h, 3d"
    raise CannotStart(message)
