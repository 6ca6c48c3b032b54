"""How the API's documents look to a person: many as a table, one as a list of its fields."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.cli.terminal import answers, printable

_wide = Console(highlight=False, width=100_000)
"""A table that goes to a file or another program is never cut."""

_STYLES = {
    "enabled": "green",
    "delivered": "green",
    "success": "green",
    "done": "green",
    "pending": "yellow",
    "waiting": "yellow",
    "throttled": "yellow",
    "paused": "yellow",
    "queued": "yellow",
    "running": "blue",
    "tracking": "blue",
    "disabled": "red",
    "dead": "red",
    "failed": "red",
    "blocked": "red",
    "gone": "red",
    "rejected": "red",
    "expired": "red",
    "unknown": "red",
    "canceled": "bright_black",
    "ended": "bright_black",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        title: on top.
        field: where a document holds it; a dot leads into an inner document.
        is_time: shown in the time zone of this machine.
        may_wrap: its text may go over several lines.
    """

    title: str
    field: str
    is_time: bool = False
    may_wrap: bool = False


def fields_of(document: msgspec.Raw) -> dict[str, object]:
    """A document's fields; none if it is no JSON object."""
    try:
        return msgspec.json.decode(document, type=dict[str, object])
    except msgspec.DecodeError:
        return {}


def text_at(fields: Mapping[str, object], path: str) -> str:
    """The text of a field; empty if it is not there."""
    value: object = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return shown(value)


def shown(value: object) -> str:
    """A value of a document in words."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case Mapping():
            return ", ".join(f"{printable(str(name))}={shown(inner)}" for name, inner in value.items())
        case list():
            return (", " if not any(isinstance(each, Mapping) for each in value) else "\n").join(map(shown, value))
        case _:
            return printable(str(value))


def print_table(columns: Sequence[Column], documents: Iterable[msgspec.Raw]) -> None:
    """Print documents, one a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, no_wrap=not column.may_wrap, overflow="fold")
    for document in documents:
        fields = fields_of(document)
        table.add_row(*(_cell(column, text_at(fields, column.field)) for column in columns))
    _print(table)


def print_fields(document: msgspec.Raw, names: Sequence[str] | None = None) -> None:
    """Print one document, a field a line; what is not there is left out.

    Args:
        document: of the API.
        names: those to print; all if None.
    """
    fields = fields_of(document)
    table = Table.grid(padding=(0, 2))
    for path, text in _flat({name: fields.get(name) for name in (fields if names is None else names)}):
        if text:
            table.add_row(Text(path, style="bold"), Text(text, style=_STYLES.get(text, "")))
    _print(table)


def _flat(fields: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields, those of inner documents with a dot before their names."""
    for name, value in fields.items():
        path = prefix + printable(str(name))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            yield path, shown(value)


def _print(table: Table) -> None:
    console = answers if answers.is_terminal else _wide
    console.print(table, soft_wrap=False)


def _cell(column: Column, text: str) -> Text:
    if column.is_time and text:
        return Text(f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}", style="dim")
    return Text(text, style=_STYLES.get(text, ""))
