"""The commands as a person meets them before anything runs: help, settings, and what cannot start."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from bridge.adapters.brokers import free_ports
from bridge.cli import app
from bridge.settings import Settings
from tests.acceptance.commands import Run, assert_one_line


def commands(group: typer.core.TyperGroup, *names: str) -> Iterator[list[str]]:
    """Every command as it is typed."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, *names, name)
        else:
            yield [*names, name]


ROOT = typer.main.get_command(app)
assert isinstance(ROOT, typer.core.TyperGroup)
COMMANDS = list(commands(ROOT))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(command: list[str], run: Run) -> None:
    said = run(*command, "--help")

    assert said.code == 0
    assert "Example:" in said.out
    assert f"tams-bridge {' '.join(command)}" in said.out


def test_help_lists_every_command(run: Run) -> None:
    said = run("--help")

    assert said.code == 0
    assert all(command[0] in said.out for command in COMMANDS)


def test_config_shows_every_variable_and_masks_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "BRIDGE_API__KEY": "very-secret-api-key",
        "BRIDGE_TAMS__API_KEY": "very-secret-key",
        "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS": '["very-secret-encryption-key"]',
        "BRIDGE_KAFKA__SASL_PASSWORD": "very-secret-password",
        "BRIDGE_KAFKA__SSL_KEY_PASSWORD": "very-secret-passphrase",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BRIDGE_WORKER__MAX_WAITING", "4711")

    table, document = run("config"), run("config", "--json")

    for section, field in Settings.model_fields.items():
        names = getattr(field.annotation, "model_fields", None)
        for name in [f"{section}__{part}" for part in names] if names else [section]:
            assert f"BRIDGE_{name.upper()}" in table.out
    assert "4711" in table.out
    assert "4711" in document.out
    assert "very-secret" not in table.out + document.out + table.err + document.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_WORKER__MAX_WAITING", "many"),
        ("BRIDGE_WORKER__MAX_WATING", "1"),
        ("BRIDGE_WROKER__MAX_WAITING", "1"),
        ("BRIDGE_TAMS__BASE_URL", "no url"),
        ("BRIDGE_TAMS__RATE", "nan"),
        ("BRIDGE_TOPICS__PREFIX", "a b"),
        ("BRIDGE_JOBS__SUBMIT_AMBIGUOUS", "maybe"),
        ("BRIDGE_CONFIG", "/nowhere/bridge.toml"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, value: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    assert_one_line(run("worker"), about=name)


def test_a_toml_file_is_read_below_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text("[worker]\nmax_waiting = 17\nmax_in_flight = 18\n")
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))
    monkeypatch.setenv("BRIDGE_WORKER__MAX_WAITING", "19")

    said = run("config", "--json")

    assert '"max_waiting": 19' in said.out
    assert '"max_in_flight": 18' in said.out


@pytest.mark.parametrize("content", ["[worker", "[worker]\nmax_wating = 1\n"])
def test_a_wrong_toml_file_is_told_in_one_line(
    content: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(content)
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))

    assert_one_line(run("worker"), about="settings: ")


def test_missing_credentials_are_told_in_one_line(run: Run) -> None:
    assert_one_line(run("worker"), about="BRIDGE_TAMS__API_KEY")


@pytest.mark.parametrize("command", [["worker"], ["topics", "create"], ["topics", "check"]], ids=" ".join)
def test_a_broker_out_of_reach_is_told_in_one_line(
    command: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("BRIDGE_TAMS__API_KEY", "key")
    monkeypatch.setenv("BRIDGE_KAFKA__CONNECT_TIMEOUT_S", "0.5")

    assert_one_line(run(*command, "--kafka", servers), about=f"no broker answers at {servers}")


@pytest.mark.parametrize(
    "command", [["watch"], ["cancel", "a"], ["keys", "list"], ["keys", "revoke", "a"]], ids=" ".join
)
def test_a_client_without_a_broker_says_so_in_one_line(
    command: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_KAFKA__CONNECT_TIMEOUT_S", "0.5")

    assert_one_line(run(*command, "--kafka", f"127.0.0.1:{free_ports(1)[0]}"), about="no broker answers")


def test_an_emulator_whose_port_is_taken_says_so_in_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run("emulator", "--port", str(taken.getsockname()[1]))

    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "address already in use" in said.err


BAD_FILES: dict[str, tuple[str, str]] = {
    "not JSON": ("{", "not JSON"),
    "empty": ("", "not JSON"),
    "empty list": ("[]", "holds no request"),
    "a number": ("7", "a request is a JSON object"),
    "no graph": ('{"a": {"b": 1}}', "neither a request"),
    "empty object": ("{}", "neither a request"),
    "wrong deadline": ('{"params": {}, "deadline_s": "soon"}', "deadline_s"),
    "wrong id": ('{"params": {}, "request_id": "a\\nb"}', "request_id"),
    "broken line": ('{"params": {}}\n{"params": \n', "line 2"),
    "wrong second": ('[{"params": {}}, {"params": 1}]', "request 2"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_holds_no_requests_is_told_in_one_line(kind: str, run: Run, tmp_path: Path) -> None:
    content, about = BAD_FILES[kind]
    file = tmp_path / "request.json"
    file.write_text(content)

    said = run("submit", str(file))

    assert_one_line(said, about=about)
    assert str(file) in said.err


def test_a_file_that_is_not_there_or_no_text_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    assert_one_line(run("submit", str(tmp_path / "missing.json")), about="cannot be read: No such file")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    assert_one_line(run("submit", str(binary)), about="not UTF-8")


def test_a_label_without_a_value_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"params": {}}')

    assert_one_line(run("submit", str(file), "--label", "tenant"), about="NAME=VALUE")


def test_one_id_cannot_name_two_requests(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('[{"params": {}}, {"params": {}}]')

    assert_one_line(run("submit", str(file), "--id", "a"), about="--id")


@pytest.mark.parametrize("arguments", [["nonsense"], ["worker", "--nonsense"], ["submit"], ["watch", "--count", "0"]])
def test_a_mistyped_command_exits_with_two_and_shows_the_way(arguments: list[str], run: Run) -> None:
    said = run(*arguments)

    assert said.code == 2
    assert "Usage" in said.err or "--help" in said.err
