"""Settings that nobody could work with are refused when a process starts, in one line that names them."""

from pathlib import Path

import pytest

from bridge.errors import CannotStart
from bridge.settings import CONFIG_FILE_VARIABLE, read_settings

SECONDS = ("BRIDGE_JOBS__DEADLINE_S", "BRIDGE_JOBS__DEDUPE_WINDOW_S", "BRIDGE_WEBHOOKS__MAX_AGE_S")
KAFKA_SECONDS = ("BRIDGE_KAFKA__SESSION_TIMEOUT_S", "BRIDGE_KAFKA__TRANSACTION_TIMEOUT_S")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "1e300") for name in (*SECONDS, *KAFKA_SECONDS)),  # the end of the calendar
        *((name, "86401") for name in KAFKA_SECONDS),  # milliseconds in 32 bits hold some weeks
        ("BRIDGE_TAMS__RATE", "1e9"),  # a slot is kept for each call
        ("BRIDGE_TAMS__BURST", "1000000000"),
        ("BRIDGE_TAMS__PRIVATE_KEY_FILE", "/caf\udce9.pem"),
    ],
)
def test_a_value_beyond_what_can_be_counted_or_shown_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(CannotStart, match=f"^settings: {name}: ") as refused:
        read_settings()

    str(refused.value).encode()


@pytest.mark.parametrize("name", SECONDS)
def test_a_year_is_no_long_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(365 * 86_400))

    read_settings()


def test_endless_nesting_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file, and where a variable is JSON."""
    file = tmp_path / "bridge.toml"
    file.write_bytes(b"x = " + b"[" * 10_000)
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(file))
    with pytest.raises(CannotStart, match=r"bridge\.toml"):
        read_settings()

    monkeypatch.delenv(CONFIG_FILE_VARIABLE)
    monkeypatch.setenv("BRIDGE_WEBHOOKS__ALLOWED_PORTS", "[" * 100_000)
    with pytest.raises(CannotStart, match=r"^settings: "):
        read_settings()
