"""How the API's documents look to a person."""

import re

import msgspec
import pytest

from bridge.cli.tables import Column, print_fields, print_table, shown


def document(**fields: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(fields))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (2.50, "2.5"),
        (["a", "b"], "a, b"),
        ({"tenant": "acme", "paid": True}, "tenant=acme, paid=yes"),
        ([{"number": 1}, {"number": 2}], "number=1\nnumber=2"),
    ],
)
def test_a_value_is_shown_in_words(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_strangers_wrote_cannot_move_the_cursor() -> None:
    """A receiver's answer is shown on the terminal of whoever debugs it."""
    assert shown("\x1b[2Jgone\x07\r") == "�[2Jgone��"


def test_a_table_has_a_line_for_each_document_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Output of a command is read by other commands, too."""
    columns = (Column("id", "id"), Column("why", "disabled.reason"), Column("url", "url", may_wrap=True))
    url = "https://acme.example/" + 200 * "x"

    print_table(columns, [document(id="ep_1", url=url), document(id="ep_2", disabled={"reason": "gone"}, url="u")])

    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "why", "url"]
    assert first.split() == ["ep_1", url]
    assert second.split() == ["ep_2", "gone", "u"]


def test_a_time_is_shown_without_its_fractions(capsys: pytest.CaptureFixture[str]) -> None:
    print_table((Column("created", "created", is_time=True),), [document(created="2026-11-24T10:15:04.123456Z")])

    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d:04", capsys.readouterr().out.splitlines()[1])


def test_a_document_is_shown_a_field_a_line_without_the_absent(capsys: pytest.CaptureFixture[str]) -> None:
    inner = {"headers": {"x-token": "***", "x\x1b": "1"}, "body": ""}

    print_fields(document(id="ep_1", tenant=None, labels={}, paused=False, request=inner, url="[red]u[/red]"))

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["id", "ep_1"],
        ["paused", "no"],
        ["request.headers.x-token", "***"],
        ["request.headers.x�", "1"],
        ["url", "[red]u[/red]"],
    ]


def test_only_the_wanted_fields_are_shown_if_some_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(document(secret="s", id="ep_1", url="u"), ["id", "secret", "missing"])

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["id", "ep_1"], ["secret", "s"]]


def test_what_is_no_object_is_shown_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(msgspec.Raw(b"[1]"))

    assert capsys.readouterr().out.strip() == ""
