"""What people type into options, read the way they mean it, or refused in words that help."""

from datetime import UTC, datetime

import pytest

from bridge.cli.options import moment, pairs, seconds
from bridge.errors import CannotStart

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("90s", "2026-11-24T11:58:30Z"),
        ("5m", "2026-11-24T11:55:00Z"),
        ("1.5h", "2026-11-24T10:30:00Z"),
        ("3d", "2026-11-21T12:00:00Z"),
        ("1w", "2026-11-17T12:00:00Z"),
        ("2026-11-24T10:15:04Z", "2026-11-24T10:15:04Z"),
        ("2026-11-24t10:15:04.25z", "2026-11-24T10:15:04.250000Z"),
        ("2026-11-24T10:15:04+02:00", "2026-11-24T08:15:04Z"),
    ],
)
def test_a_time_is_a_point_or_so_long_ago(text: str, read: str) -> None:
    assert moment(text, option="--since", now=NOW) == read


@pytest.mark.parametrize("text", ["", "90", "yesterday", "-2h", "2026-11-24", "2026-11-24T10:15:04", "99999999999d"])
def test_a_time_that_may_be_misread_is_refused(text: str) -> None:
    """Without an offset it would mean another hour on another machine."""
    with pytest.raises(CannotStart, match=r"--since '.*': a time is written as 2026-"):
        moment(text, option="--since", now=NOW)


def test_without_a_time_none_is_asked_for() -> None:
    assert moment(None, option="--since") is None
    assert seconds(None, option="--overlap") is None
    assert pairs([]) is None


@pytest.mark.parametrize(("text", "read"), [("90", 90), ("0.5", 0.5), ("90s", 90), ("5m", 300), ("24h", 86_400)])
def test_a_length_of_time_is_read_in_seconds(text: str, read: float) -> None:
    assert seconds(text, option="--overlap") == read


@pytest.mark.parametrize("text", ["", "a day", "5y", "-1s"])
def test_a_length_of_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CannotStart, match=r"--overlap '.*': a length of time is"):
        seconds(text, option="--overlap")


def test_pairs_are_cut_at_the_first_equals_sign() -> None:
    assert pairs(["tenant=acme", "note=a=b", "empty="]) == {"tenant": "acme", "note": "a=b", "empty": ""}


@pytest.mark.parametrize("wrong", ["=secret", "token"])
def test_a_wrong_pair_is_refused_without_its_value(wrong: str) -> None:
    """Headers often hold tokens, and errors end up in logs."""
    with pytest.raises(CannotStart, match=r"--header '.*': a header is NAME=VALUE") as refused:
        pairs(["x=1", wrong], option="--header", what="a header")

    assert "secret" not in str(refused.value)
