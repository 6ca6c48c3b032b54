"""Misbehaviour on demand: what may go wrong with an answer, and which requests it befalls.

A fault says what is answered (`status` with `body` and `retry_after`, `malformed`, `html`), how it is sent (`delay_s`,
`drip_s`, `cut`), or both. Its `effect` says whether the request is carried out all the same: by default it is where the
answer is only late, broken or lost, and it is not where another status or a web page takes its place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bridge.emulator.chance import share
from bridge.emulator.settings import Seconds
from bridge.emulator.wire import Answer, RpcCode, rpc_status

BROKEN_JSON = b'{"job": {"id": "8814179473'
WEB_PAGE = b"<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"


class Fault(BaseModel):
    """One way for a request to go wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    retry_after: int | float | str | None = None
    body: object = None
    malformed: bool = False
    html: bool = False
    delay_s: Seconds = 0.0
    drip_s: Seconds = 0.0
    cut: Literal["before", "after"] | None = None
    effect: Literal["none", "done"] | None = None

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.label:
            msg = "a fault needs one of status, malformed, html, delay_s, drip_s, cut"
            raise ValueError(msg)
        return self

    @property
    def label(self) -> str:
        """How the journal calls it: the parts that differ from a normal answer."""
        parts = self.model_dump(
            include={"status", "malformed", "html", "delay_s", "drip_s", "cut"}, exclude_defaults=True
        )
        return " ".join(f"{name}={value}" for name, value in parts.items())

    def carry_out(self, action: Callable[[], Answer]) -> Answer:
        """Do what was requested, unless the fault prevents it, and spoil the answer."""
        answer = action() if self._is_done else Answer()
        return replace(self._content(answer), delay_s=self.delay_s, drip_s=self.drip_s, cut=self.cut is not None)

    @property
    def _is_done(self) -> bool:
        if self.effect:
            return self.effect == "done"
        return self.cut != "before" and self.status is None and not self.html

    def _content(self, answer: Answer) -> Answer:
        if self.malformed:
            return Answer(status=self.status or 200, body=BROKEN_JSON)
        if self.html:
            return Answer(status=self.status or 200, body=WEB_PAGE, content_type="text/html; charset=utf-8")
        if self.status is not None:
            headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after}"}
            return Answer(status=self.status, body=self._body(self.status), headers=headers)
        return answer

    def _body(self, status: int) -> bytes:
        if isinstance(self.body, str):
            return self.body.encode()
        return msgspec.json.encode(rpc_status(RpcCode.UNKNOWN, f"fault {status}") if self.body is None else self.body)


class Match(BaseModel):
    """Which requests a rule is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str | None = None
    path_prefix: str = ""

    def fits(self, method: str, path: str) -> bool:
        """Tell whether a request is meant."""
        return self.method in (None, method) and path.startswith(self.path_prefix)


class FaultRule(BaseModel):
    """A fault for coming requests, whichever job they are about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Match = Match()
    fault: Fault
    times: Annotated[int, Field(ge=1)] | None = None
    """How many requests it befalls; null all of them, until the rules are cleared."""
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of the matching requests it befalls."""
    seed: int = 0
    """Decides which ones."""


@dataclass(slots=True)
class _Progress:
    seen: int = 0
    befallen: int = 0


class FaultRules:
    """The rules in force; of those that match, the first one applies."""

    def __init__(self) -> None:
        self._rules: list[tuple[FaultRule, _Progress]] = []

    def add(self, rules: Iterable[FaultRule]) -> None:
        """Put rules behind those in force."""
        self._rules += [(rule, _Progress()) for rule in rules]

    def clear(self) -> None:
        """Drop all rules."""
        self._rules.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Give the fault that befalls a request, and count it."""
        for rule, progress in self._rules:
            if not rule.match.fits(method, path) or progress.befallen == rule.times:
                continue
            progress.seen += 1
            if share(rule.seed, progress.seen) < rule.probability:
                progress.befallen += 1
                return rule.fault
        return None
