"""Every switch of the emulator, each with a line of meaning. "Unknown" marks what TAMS does not document."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DEFAULT_APP = "emulator-app"
DEFAULT_KEY = "emulator-key"


class EmulatorSettings(BaseModel):
    """How the emulator behaves; may be changed while it runs, except for the two settings of the journal."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Emulated seconds per real second; durations, rate window and expiry of URLs all follow it."""
    seed: int = 0
    """Makes the run times and the signatures of output URLs differ from one emulator to the next."""

    bearer_keys: dict[str, str] = {DEFAULT_KEY: DEFAULT_APP}
    """Accepted bearer keys, each with the app it belongs to."""
    public_keys: dict[str, str] = {}
    """RSA public keys (PEM text) by app id, against which signed requests are verified."""
    public_key_file: Path | None = None
    """PEM file holding the RSA public key of the app `emulator-app`."""
    clock_skew_s: Seconds | None = 300.0
    """Unknown: how far a signed timestamp may lie from the real clock; null accepts any."""
    nonce_window_s: Seconds = 300.0
    """Unknown: for how many real seconds a nonce may not be used again; 0 allows replays."""
    malformed_authorization_status: int = 404
    """Unknown: HTTP status of gateway code 100002, a missing or malformed Authorization header."""

    rate: Annotated[float, Field(ge=0)] = 5.0
    """Requests admitted in any one second, for all endpoints together; 0 means no limit."""
    rate_scope: Literal["app", "key"] = "app"
    """Unknown: whether the requests of one app share a rate or each key has its own."""
    retry_after: bool = False
    """Unknown: whether a 429 carries Retry-After."""

    repeat: Literal["same", "error", "new"] = "same"
    """Unknown: a known requestId answers the job it made, HTTP 409, or makes another job."""
    request_id_memory_s: Seconds = 86_400.0
    """Unknown: how long a requestId is remembered."""
    running_notify_url: Literal["ignored", "recorded"] = "ignored"
    """Unknown: runningNotifyUrl is dropped, or kept to be read at /_emulator/jobs/{id}; it is never called."""

    slots: Annotated[int, Field(ge=1)] | None = None
    """Jobs that run at the same time; null never makes a job wait for another."""
    strangers: Annotated[int, Field(ge=0)] = 3
    """Jobs of other customers that stand in the queue before each new job."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Unknown: cap on live jobs, answered 429 above it; null means none."""
    created_s: Seconds = 0.2
    """How long a job stays CREATED; 0 skips it. Counts as part of `queue_s`."""
    pending_s: Seconds = 0.3
    """Unknown: how long a job is then PENDING; 0 means PENDING is never seen. Counts as part of `queue_s`."""
    queue_s: Seconds = 2.0
    """Time from the creation of a job until it may run."""
    run_s: Seconds | None = None
    """Run time of every job; null reckons it from the graph (steps, pixels, samples)."""
    longest_run_s: Seconds | None = None
    """Unknown: after how long a running job fails with FATAL_ERROR; null lets it run."""
    retention_s: Seconds = 604_800.0
    """Unknown: how long a finished job can be read; 404 afterwards."""

    credits_per_output: Annotated[float, Field(ge=0)] = 0.8
    """Price of one image; a video costs five times as much, a failed job nothing."""
    balance: Annotated[float, Field(ge=0)] | None = None
    """Credits the account had at the start; null never runs out."""
    credits_out_status: int = 403
    """Unknown: HTTP status once the credits have run out."""
    credits_out_body: dict[str, object] = {"code": 7, "message": "credits not enough", "details": []}
    """Unknown: body once the credits have run out."""

    url_life_s: Seconds = 3600.0
    """How long the URL of an output can be fetched; 403 afterwards."""
    url_renewal: Literal["fixed", "renewed"] = "fixed"
    """Unknown: URLs live from the end of the job (expiredIn counts down), or anew from each look at it."""
    public_url: str | None = None
    """Where clients reach the emulator, for output URLs; null takes the Host header of each request."""

    progress_scale: Literal[1, 100] = 1
    """Unknown: progress runs from 0 to 1 or from 0 to 100."""
    time_unit: Literal["s", "ms"] = "s"
    """Unknown: unit of ctime and mtime."""
    write_defaults: bool = False
    """Unknown: whether empty, zero and default values are written (null for absent messages) or left out."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 10_000_000
    """Longest request body; 413 above it."""

    journal_entries: Annotated[int, Field(ge=1)] = 1_000_000
    """How many requests the journal keeps in memory; the oldest are dropped."""
    journal_file: Path | None = None
    """File to which every journal entry is appended as well, one JSON line each."""
