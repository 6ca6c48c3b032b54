"""What is deployed, checked without a container engine: all commands, variables, paths and versions named exist."""

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import typer.core
import yaml
from packaging.requirements import Requirement
from pydantic import BaseModel

from bridge.adapters.brokers.apache import POM
from bridge.adapters.vault import Vault
from bridge.cli import app
from bridge.settings import Settings

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "deploy" / "requirements").glob("*.txt"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)

STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
DURATION = {"type": "string", "pattern": r"^(\d+(us|ms|s|m|h))+$"}
# The part of the Compose specification that we use; all else is refused, a misspelt key among it.
COMPOSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image", "healthcheck", "restart"],
                "properties": {
                    "image": {"type": "string", "pattern": r"^[a-z0-9/._-]+:[A-Za-z0-9._-]+$"},
                    "command": STRINGS,
                    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                    "stop_grace_period": DURATION,
                    "volumes": STRINGS,
                    "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "build": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["context", "dockerfile"],
                        "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
                    },
                    "depends_on": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["condition"],
                            "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
                        },
                    },
                    "healthcheck": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["test", "interval", "timeout", "retries"],
                        "properties": {
                            "test": STRINGS,
                            "interval": DURATION,
                            "timeout": DURATION,
                            "start_period": DURATION,
                            "retries": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}


def options_of_command(name: str) -> set[str]:
    """The options that `tams-bridge NAME` takes; fails where there is no such command."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert name in group.commands
    return {option for parameter in group.commands[name].params for option in parameter.opts}


def instructions(name: str) -> list[str]:
    """What follows each instruction of that name in the Dockerfile."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, flags=re.MULTILINE)


def defaults_in_force(value: str) -> str:
    """`${NAME:-default}` becomes the default."""
    return re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", value)


def test_the_compose_file_has_the_shape_compose_expects() -> None:
    jsonschema.validate(COMPOSE, COMPOSE_SCHEMA)


def test_services_and_volumes_named_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_and_takes_its_options(name: str) -> None:
    arguments: list[str] = SERVICES[name]["command"]
    given = {argument for argument in arguments[1:] if argument.startswith("--")}

    assert given <= options_of_command(arguments[0])


def test_the_image_starts_a_command_that_exists() -> None:
    (entry,), (default,) = instructions("ENTRYPOINT"), instructions("CMD")
    (program,) = yaml.safe_load(entry)

    assert program in PROJECT["project"]["scripts"]
    assert options_of_command(yaml.safe_load(default)[0])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    for variable in SERVICES[name].get("environment", {}):
        model: type[BaseModel] = Settings
        assert variable.startswith("BRIDGE_")
        *sections, last = variable.removeprefix("BRIDGE_").lower().split("__")
        for section in sections:
            annotation = model.model_fields[section].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
        assert last in model.model_fields, f"{variable} is no setting"


@pytest.mark.parametrize("name", ["worker", "forwarder", "api"])
def test_the_settings_accept_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, defaults_in_force(value))

    settings = Settings()

    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.http.port == 8080
    if name != "worker":
        Vault([key.get_secret_value() for key in settings.webhooks.encryption_keys])


def test_health_is_asked_where_the_service_listens() -> None:
    command: list[str] = SERVICES["emulator"]["command"]
    port = command[command.index("--port") + 1]

    assert f"localhost:{port}/_emulator/health" in SERVICES["emulator"]["healthcheck"]["test"][-1]
    for name in ("worker", "forwarder", "api"):
        assert "localhost:8080/health/ready" in SERVICES[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["worker", "forwarder", "api"])
def test_every_role_has_time_to_end_its_work(name: str) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > 10


def test_kafka_is_the_version_the_tests_run_on() -> None:
    (version,) = re.findall(r"<kafka.version>(.+)</kafka.version>", POM.read_text())

    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"


def test_our_image_bears_our_version() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {f"tams-bridge:{PROJECT['project']['version']}"}


def test_every_path_copied_into_the_image_exists_and_is_sent_to_the_engine() -> None:
    ignore = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    copied = [source for line in instructions("COPY") if "--from=" not in line for source in line.split()[:-1]]

    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in sent), f"{source} is ignored"


def test_the_image_does_not_run_as_root() -> None:
    (user,) = instructions("USER")

    assert user not in {"root", "0"}
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_files_carry_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()

    assert "://" not in text
    assert not re.search(r"^(--|-[a-z])", text, flags=re.MULTILINE)
    assert len(re.findall(r"^\S+==", text, flags=re.MULTILINE)) == len(
        re.findall(r"\\\n    --hash=[^\\]+(?:\\\n    --hash=[^\\\n]+)*", text)
    )


def test_the_lock_holds_what_the_project_asks_for() -> None:
    """A dependency changed in pyproject.toml without `make lock` is seen here."""
    project = PROJECT["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lock = (ROOT / "deploy" / "requirements" / "runtime.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, flags=re.MULTILINE))

    for line in asked:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[requirement.name.lower()]), f"{line}: run `make lock`"


def test_all_lock_files_name_the_same_versions() -> None:
    """Of a package, or of each of its pins where it has one for older and one for newer versions of Python."""
    pins: dict[str, set[frozenset[str]]] = {}
    for lock in LOCKS:
        here: dict[str, set[str]] = {}
        for name, pin in re.findall(r"^([\w.-]+)==(.+?) ?\\?$", lock.read_text(), flags=re.MULTILINE):
            here.setdefault(name, set()).add(pin)
        for name, found in here.items():
            pins.setdefault(name, set()).add(frozenset(found))

    assert {name: found for name, found in pins.items() if len(found) > 1} == {}
