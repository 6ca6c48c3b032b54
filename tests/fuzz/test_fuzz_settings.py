"""Whatever stands in environment and configuration file, a process starts, or says in one line what is wrong."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from pydantic import BaseModel

from bridge.adapters.kafka.connection import milliseconds
from bridge.adapters.kafka.topics import Topics
from bridge.core.budget import RateBudget
from bridge.core.jobs import accept, restore
from bridge.errors import CannotStart
from bridge.roles.forwarder import _plan
from bridge.roles.ground import address_policy, back_off
from bridge.roles.worker import job_policy
from bridge.settings import CONFIG_FILE_VARIABLE, Settings, read_settings
from tests.core.examples import NOW, job_arrival, submitting
from tests.fuzz.campaign import check_words, fuzz
from tests.fuzz.mutations import hostile_text, spoilt_bytes

CANARY = "canary-4711"


def _fields() -> dict[str, type]:
    """Every setting by its variable."""
    found: dict[str, type] = {}
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {f"BRIDGE_{section}__{name}".upper(): each.annotation for name, each in kind.model_fields.items()}  # type: ignore[misc]
        else:
            found[f"BRIDGE_{section}".upper()] = kind  # type: ignore[assignment]
    return found


FIELDS = _fields()
SECRETS = (
    "BRIDGE_API__KEY",
    "BRIDGE_KAFKA__SASL_PASSWORD",
    "BRIDGE_KAFKA__SSL_KEY_PASSWORD",
    "BRIDGE_TAMS__API_KEY",
    "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS",
)
GOOD: Sequence[str] = (
    *("1", "0", "5.5", "-1", "1e3", "1e308", "1e13", "2e9", "inf", "nan", "true", "off", "9" * 30, "9" * 5_000, "0x10"),
    *(
        "",
        " ",
        "tams",
        "localhost:9092",
        "https://tams.example/x",
        "http://[::1]:1/",
        "/dev/null",
        "PLAINTEXT",
        "SASL_SSL",
    ),
    *(
        "repeat",
        "fail",
        "json",
        '["10.0.0.0/8"]',
        '["10.0.0.0/99"]',
        "[80, 443]",
        "[0]",
        '{"tams.job.success": "failed"}',
    ),
    *('{"tams.job.success": "x"}', "[" * 3_000, '{"a":' * 3_000, "[]", "{}", "null", '["x"]'),
)
TOML: Sequence[bytes] = (
    b'source = "/b"\n[tams]\napi_key = "canary-4711"\nrate = 5.0\n[kafka]\nbootstrap_servers = "localhost:9092"\n',
    b"[jobs]\ndeadline_s = 1e300\n[webhooks]\nallowed_ports = [443]\nencryption_keys = ['canary-4711']\n",
    b"x = " + b"[" * 3_000,
    b"a" + b".a" * 200 + b" = 1",
    b"[tams]\nrate = 2026-03-01T12:00:00Z\n",
    b"tams = 1\n",
    b"\xff\xfe",
)


@dataclass(frozen=True, slots=True)
class Given:
    """What a process finds when it starts."""

    variables: Mapping[str, str]
    file: bytes | None


def make_given(chance: Random) -> Given:
    """Some variables, and now and then a file."""
    variables = dict.fromkeys(chance.sample(SECRETS, 1), CANARY)
    for name in chance.sample(list(FIELDS), chance.randint(1, 4)):
        variables[_name(chance, name)] = _value(chance)
    file = chance.choice(TOML) if chance.random() < 0.3 else None
    return Given(variables, spoilt_bytes(chance, file) if file is not None and chance.random() < 0.6 else file)


def _name(chance: Random, name: str) -> str:
    match chance.random():
        case luck if luck < 0.85:
            return name
        case luck if luck < 0.9:
            return name.partition("__")[0]
        case luck if luck < 0.95:
            return name + "__X"
        case _:
            return (
                spoilt_bytes(chance, name.encode()).decode(errors="replace").replace("\0", "").replace("=", "") or "X"
            )


def _value(chance: Random) -> str:
    text = chance.choice(GOOD) if chance.random() < 0.8 else hostile_text(chance)
    if chance.random() < 0.1:
        text = spoilt_bytes(chance, text.encode()).decode(errors="surrogateescape")
    return text.replace("\0", "")


def checked_in(file: Path) -> Callable[[Given], None]:
    """A check that writes configuration to this file."""

    def check(given: Given) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
                patch.delenv(name)
            for name, value in given.variables.items():
                patch.setenv(name, value)
            if given.file is not None:
                file.write_bytes(given.file)
                patch.setenv(CONFIG_FILE_VARIABLE, str(file))
            _check_start()

    return check


def _check_start() -> None:
    try:
        settings = read_settings()
        Topics(settings.kafka, settings.topics)
        address_policy(settings)
    except CannotStart as error:
        check_words(error, most=20_000, hidden=[CANARY])
        return
    assert CANARY not in repr(settings)
    assert CANARY not in settings.model_dump_json()
    _check_works(settings)


def _check_works(settings: Settings) -> None:
    """What is made of the settings can be worked with."""
    policy = job_policy(settings)
    record = accept(job_arrival(), policy, NOW).record
    restore(submitting(), policy, NOW)
    assert record.deadline is None or record.deadline > NOW
    for pauses in (policy.retry, policy.resubmit, back_off(settings.webhooks.breaker_pause_s, 1.0)):
        pauses.pause(40, 1.0)
    assert NOW + _plan(settings, 3).policy.max_age > NOW
    RateBudget(settings.tams.rate or 1.0, burst=settings.tams.burst)
    kafka = settings.kafka
    assert (
        max(map(milliseconds, (kafka.session_timeout_s, kafka.transaction_timeout_s, kafka.request_timeout_s))) < 2**31
    )
    _ = (settings.jobs.priority_step_s * 9, NOW + policy.dedupe_window)


def test_any_configuration_starts_or_says_what_is_wrong(tmp_path: Path) -> None:
    fuzz("settings", make_given, checked_in(tmp_path / "bridge.toml"))
