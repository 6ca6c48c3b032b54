"""The settings of every process, read once: environment variables `BRIDGE_…` over a TOML file over these defaults.

Nested fields are written with two underscores: `BRIDGE_KAFKA__BOOTSTRAP_SERVERS`. The file is `BRIDGE_CONFIG`, if set.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from typing_extensions import override

from bridge.errors import CannotStart
from bridge.messages import EventType

CONFIG_FILE_VARIABLE = "BRIDGE_CONFIG"

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400, allow_inf_nan=False)]
"""Up to some years: dates end with the year 9999."""

KafkaSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""Up to a day: brokers count milliseconds, in 32 bits."""


def _in_utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        message = "the path is not UTF-8"
        raise ValueError(message) from None
    return path


ReadablePath = Annotated[Path, AfterValidator(_in_utf8)]
"""A path in UTF-8, so that it can be shown."""


class Section(BaseModel):
    """Base of the sections: a misspelt setting is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """The brokers, and how to get in."""

    bootstrap_servers: str = Field("localhost:9092", description="Brokers to start from, `host:port`, comma separated.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are secured."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How we prove who we are, for the two SASL protocols."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    ssl_cafile: ReadablePath | None = Field(
        None, description="PEM file of the authorities to trust; the system's if empty."
    )
    ssl_certfile: ReadablePath | None = Field(None, description="PEM file of our certificate, for mutual TLS.")
    ssl_keyfile: ReadablePath | None = Field(None, description="PEM file of its key.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of the key.")
    ssl_check_hostname: bool = Field(default=True, description="Whether the broker's certificate must name its host.")
    client_id: str = Field("tams-bridge", description="Name shown in the broker's logs and quotas.")
    connect_timeout_s: Seconds = Field(30, description="How long a starting process waits for a broker.")
    request_timeout_s: KafkaSeconds = Field(20, description="Longest wait for one answer of a broker.")
    session_timeout_s: KafkaSeconds = Field(15, description="A worker silent for this long loses its partitions.")
    heartbeat_interval_s: KafkaSeconds = Field(
        1, description="How often a worker says that it lives, and learns that partitions are handed out anew."
    )
    rebalance_timeout_s: KafkaSeconds = Field(30, description="Longest time a worker may take to join a rebalance.")
    transaction_timeout_s: KafkaSeconds = Field(20, description="An open transaction older than this is aborted.")
    reopen_pause_s: Seconds = Field(1, description="Pause before a partition that failed is opened again; doubles.")
    reopen_pause_limit_s: Seconds = Field(15, description="Longest pause between tries to open a partition.")


class TopicSettings(Section):
    """Names and shapes of the topics."""

    prefix: str = Field("tams", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="First part of every topic's name.")
    partitions: int = Field(12, ge=1, le=1000, description="Partitions of topics it creates.")
    replication_factor: int | None = Field(None, ge=1, description="Replicas of topics it creates; up to 3 if empty.")
    max_message_bytes: int = Field(8 * 1024 * 1024, ge=65_536, description="Longest record of topics it creates.")
    create: bool = Field(default=True, description="Whether a worker creates topics that are absent.")
    routes: dict[EventType, str] = Field(
        default_factory=dict,
        description="Event type → last part of its topic's name, if it is to differ: `progress`, `success`, `failed`.",
    )


class TamsSettings(Section):
    """The upstream."""

    base_url: HttpUrl = Field(
        HttpUrl("https://ap-east-1.tensorart.cloud"), description="Where TAMS answers, from your console."
    )
    api_key: SecretStr | None = Field(None, description="Key for `Authorization: Bearer`.")
    app_id: str | None = Field(None, description="App id, for signed requests.")
    private_key_file: ReadablePath | None = Field(None, description="PEM file of the RSA key, for signed requests.")
    rate: float = Field(
        5, ge=0, le=100_000, allow_inf_nan=False, description="Calls a second over all workers; 0 for no limit."
    )
    burst: int | None = Field(
        None, ge=1, le=100_000, description="Most calls at once; as many as `rate` has in a second if empty."
    )
    submit_share: float = Field(
        0.5, gt=0, lt=1, description="Part of the calls that submit while jobs wait both to be submitted and looked at."
    )
    concurrency: int = Field(16, ge=1, le=1000, description="Most calls of a worker under way at once.")
    timeout_s: Seconds = Field(15, description="Longest time for a whole call.")
    connect_timeout_s: Seconds = Field(5, description="Longest time to connect.")
    max_answer_bytes: int = Field(768 * 1024, ge=1024, description="Longest answer read.")
    breaker_threshold: int = Field(3, ge=1, description="Failures in a row after which only probes are made.")
    breaker_pause_s: Seconds = Field(1, description="Pause before the first probe; doubles.")
    breaker_pause_limit_s: Seconds = Field(30, description="Longest pause between probes.")
    throttled_pause_s: Seconds = Field(1, description="Pause of all calls after a 429 without `Retry-After`.")
    throttle_limit_s: Seconds = Field(3_600, description="Longest `Retry-After` that is followed.")

    @model_validator(mode="after")
    def _one_way_in(self) -> "TamsSettings":
        if (self.app_id is None) != (self.private_key_file is None):
            message = "app_id and private_key_file go together (signed requests)"
            raise ValueError(message)
        if self.api_key is not None and self.app_id is not None:
            message = "give either api_key (bearer) or app_id and private_key_file (signed requests), not both"
            raise ValueError(message)
        return self


class JobSettings(Section):
    """The life of a job."""

    max_attempts: int = Field(3, ge=1, le=100, description="Attempts for a request that names none.")
    retry_pause_s: Seconds = Field(2, description="Pause before the second attempt; doubles with each further one.")
    retry_pause_limit_s: Seconds = Field(60, description="Longest pause between attempts.")
    resubmit_pause_s: Seconds = Field(1, description="Pause before a submit or a cancel is tried again; doubles.")
    resubmit_pause_limit_s: Seconds = Field(60, description="Longest pause between tries of a submit or a cancel.")
    submit_ambiguous: Literal["repeat", "fail"] = Field(
        "repeat",
        description="A submit whose outcome cannot be known: again with the same `requestId`, or end as `unknown`.",
    )
    priority_step_s: Seconds = Field(
        60, description="How much longer waiting one step of a request's `priority` is worth, while jobs wait."
    )
    submit_lease_s: Seconds = Field(5, description="How long after its intent was decided a POST may begin.")
    deadline_s: Seconds | None = Field(None, description="Deadline of a request that names none; none if empty.")
    deadline_grace_s: Seconds = Field(60, description="How long after its deadline a job may still end by TAMS' word.")
    missing_grace_s: Seconds = Field(60, description="How long TAMS may not know a job before it ends as `unknown`.")
    dedupe_window_s: Seconds = Field(
        86_400, description="How long a finished job, and so its request id, is remembered."
    )


class PollSettings(Section):
    """When jobs are looked at."""

    interval_s: Seconds = Field(1, description="Shortest time between two looks at one job.")
    max_silence_s: Seconds = Field(
        60,
        description="A job not looked at for this long comes first in every eighth look, whatever is expected of it.",
    )


class WorkerSettings(Section):
    """One worker process."""

    group: str = Field(
        "tams-bridge.worker",
        pattern=r"^[A-Za-z0-9._-]{1,150}$",
        description="Consumer group, and first part of the transactional ids.",
    )
    max_waiting: int = Field(
        1_000, ge=1, description="Jobs waiting to be submitted beyond which requests stay in Kafka."
    )
    max_in_flight: int = Field(100_000, ge=1, description="Most jobs given to TAMS at once.")
    max_request_bytes: int = Field(
        2 * 1024 * 1024, ge=1024, description="Longest request taken; longer ones are parked."
    )
    closing_time_s: Seconds = Field(6, description="How long a closing partition waits for its POSTs under way.")


class ForwarderSettings(Section):
    """One forwarder process."""

    group: str = Field(
        "tams-bridge.forwarder",
        pattern=r"^[A-Za-z0-9._-]{1,150}$",
        description="Consumer group, and first part of the transactional ids.",
    )
    concurrency: int = Field(1_000, ge=1, le=20_000, description="Most POSTs of a forwarder under way at once.")
    read_ahead: int = Field(
        20_000, ge=1, description="Deliveries waiting for endpoints that work, beyond which orders stay in Kafka."
    )
    max_held: int = Field(
        200_000,
        ge=1,
        description="Deliveries in memory beyond which only a fair share is kept for an endpoint that takes none.",
    )
    commit_interval_s: Seconds = Field(
        0.1, description="Longest time an outcome waits to be written, so that a crash repeats little."
    )
    closing_time_s: Seconds = Field(6, description="How long a closing partition waits for its POSTs under way.")


class WebhookSettings(Section):
    """Webhooks: where they may lead, and how deliveries are tried again."""

    encryption_keys: tuple[SecretStr, ...] = Field(
        (),
        description="Keys that encrypt the registry's secrets, as JSON list; the first one encrypts, all decrypt. "
        "`tams-bridge keys encryption-key` makes one.",
    )
    allowed_networks: tuple[str, ...] = Field(
        (), description='Private networks that endpoints may lead to all the same, as JSON list: `["10.1.0.0/16"]`.'
    )
    allowed_ports: tuple[int, ...] = Field(
        (80, 443, 8080, 8443), description="Ports endpoints may name, outside of the allowed networks."
    )
    allow_http: bool = Field(
        default=False, description="Whether endpoints outside of the allowed networks may use http."
    )
    ca_file: ReadablePath | None = Field(None, description="PEM file of further authorities to trust.")
    user_agent: str = Field("tams-bridge", min_length=1, description="`user-agent` of every POST.")
    breaker_threshold: int = Field(5, ge=1, description="Failures in a row after which only probes are sent.")
    breaker_pause_s: Seconds = Field(5, description="Pause before the first probe; doubles.")
    breaker_pause_limit_s: Seconds = Field(300, description="Longest pause between probes.")
    throttle_limit_s: Seconds = Field(3_600, description="Longest `Retry-After` that is followed.")
    warn_after_s: Seconds = Field(86_400, description="Failing for this long, an endpoint's owner is warned.")
    disable_after_s: Seconds = Field(5 * 86_400, description="Failing for this long, an endpoint is disabled.")
    disabled_probe_s: Seconds = Field(3_600, description="Pause between probes of one that is disabled for failing.")
    max_pending: int = Field(
        10_000, ge=500, description="Deliveries kept for one endpoint; further ones go to the dead-letter topic."
    )
    max_age_s: Seconds = Field(7 * 86_400, description="A delivery older than this is given up.")
    answer_bytes: int = Field(
        2_000, ge=0, le=16_384, description="Bytes of a receiver's answer that are kept with the attempt."
    )


class ApiSettings(Section):
    """The HTTP API, on the HTTP port."""

    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1024, description="Longest request body taken.")
    max_page: int = Field(200, ge=1, le=1000, description="Most items of one page.")
    history: int = Field(20_000, ge=100, description="Attempts kept in memory for people to look at.")
    jobs: int = Field(100_000, ge=100, description="Jobs kept in memory for people to look at.")
    streams: int = Field(500, ge=1, description="Most clients that follow events at once.")
    keep_alive_s: Seconds = Field(15, description="How often a silent stream of events says that it lives.")
    write_timeout_s: Seconds = Field(
        10, description="Longest wait for the brokers to confirm a change, and again until it is seen; 503 after it."
    )
    url: HttpUrl = Field(HttpUrl("http://127.0.0.1:8080"), description="Where the commands find the API.")
    key: SecretStr | None = Field(None, description="API key of the commands.")


class HttpSettings(Section):
    """The port of health, metrics and the API."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 for none.")
    max_connections: int = Field(
        2_000, ge=10, description="Connections open at once, beyond which requests are answered 503."
    )


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level written.")
    format: Literal["auto", "console", "json"] = Field("auto", description="`auto`: console on a terminal, else JSON.")


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="BRIDGE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    tams: TamsSettings = TamsSettings()
    jobs: JobSettings = JobSettings()
    poll: PollSettings = PollSettings()
    worker: WorkerSettings = WorkerSettings()
    forwarder: ForwarderSettings = ForwarderSettings()
    webhooks: WebhookSettings = WebhookSettings()
    api: ApiSettings = ApiSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    closing_time_s: Seconds = Field(
        10, description="Longest time from SIGTERM to the end of a process; longer than its partitions' closing time."
    )
    source: str = Field(
        "/tams-bridge", min_length=1, description="`ce_source` of every event: a URI reference naming this bridge."
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file."""
        del dotenv_settings, file_secret_settings
        file = os.environ.get(CONFIG_FILE_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)


def read_settings(**overrides: object) -> Settings:
    """Read the settings in force.

    Args:
        overrides: sections or parts of them that beat everything else, such as `kafka={"bootstrap_servers": "…"}`.

    Raises:
        CannotStart: a value is wrong or unknown, or the file cannot be read.
    """
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file and not Path(file).is_file():
        message = f"{CONFIG_FILE_VARIABLE} names {file!r}, which is not a file"
        raise CannotStart(message)
    _refuse_unknown_sections()
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # sections are validated by pydantic
    except ValidationError as error:
        problems = [
            f"{_variable(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False)
        ]
        message = f"settings: {'; '.join(problems)} (run `tams-bridge config` to see all settings)"
        raise CannotStart(message) from None
    except (ValueError, RecursionError) as error:
        message = f"settings: {file or 'environment'}: {error}"
        raise CannotStart(message) from None


def _refuse_unknown_sections() -> None:
    """pydantic-settings reads only the sections it knows, so a misspelt one would be a silent default."""
    prefix = "BRIDGE_"
    for name in os.environ:
        section, nested, _ = name.removeprefix(prefix).partition("__")
        if name.startswith(prefix) and nested and section.lower() not in Settings.model_fields:
            message = (
                f"settings: {name}: there is no section {section!r} (run `tams-bridge config` to see all settings)"
            )
            raise CannotStart(message)


def _variable(location: tuple[int | str, ...]) -> str:
    return "BRIDGE_" + "__".join(str(part).upper() for part in location)
