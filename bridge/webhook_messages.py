"""What travels for webhooks: endpoints, deliveries and their attempts, replays, API keys.

The registry topics hold one JSON record a key, written by the API and, for `EndpointStatus`, by forwarders. The
bridge writes all of these, so msgspec reads them back; what people may say about an endpoint is checked at the API.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from bridge.messages import NOTHING, Count, Instant

DEFAULT_EVENT_TYPES = ("tams.job.*",)

RETRY_SCHEDULE_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Pauses before the second, third … attempt (Standard Webhooks 1.0.0, "Retry schedule")."""


SEVERAL_YEARS_S = 1e9

Pause = Annotated[float, msgspec.Meta(gt=0, le=SEVERAL_YEARS_S)]
"""Seconds; more of them than this could not be added to a date."""


Id = Annotated[str, msgspec.Meta(pattern=r"\A[^\x1f]+\Z")]
"""An id as records of the dispatch topic bring it; US parts the keys of what lies beside deliveries."""


class SignatureScheme(StrEnum):
    """How POSTs are signed: HMAC-SHA256 with a shared secret, or Ed25519 with a key pair (Standard Webhooks 1.0.0)."""

    V1 = "v1"
    V1A = "v1a"


class Ordering(StrEnum):
    """Whether events of one job wait for each other; other jobs always go on."""

    NONE = "none"
    JOB = "job"


class SealedSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signing secret, encrypted at rest.

    Args:
        sealed: what `SecretBox.seal` gave for the secret as people write it (`whsec_…` or `whsk_…`).
        created: when it was made.
        expires: until when it still signs beside its successor; None for the newest.
    """

    sealed: str
    created: Instant
    expires: Instant | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A registered webhook, under its id in `<prefix>.endpoints`; written by the API alone.

    Args:
        id: `ep_…`.
        url: where events are posted.
        description: for people.
        event_types: patterns; an event is sent if any matches. `*` stands for anything.
        labels: an event must carry all of these.
        tenant: only events with this value of the label `tenant`; None for those of every tenant.
        sealed_headers: custom headers as a sealed JSON object, since they often hold tokens; empty for none.
        header_names: their names, for people.
        secrets: those that sign now, the newest first.
        scheme: how POSTs are signed.
        rate: most POSTs a second; None for no limit.
        max_in_flight: most POSTs under way at once.
        retry_schedule_s: pauses before the second, third … attempt.
        timeout_s: longest time for a whole exchange.
        ordering: whether events of one job wait for each other.
        drop_superseded: whether progress that a later event of the same job has overtaken is left out.
        handshake: whether the receiver consented by the CloudEvents handshake.
        paused: the user does not want POSTs now.
        epoch: how often it was (re-)enabled; a status of an earlier epoch no longer holds.
        created, changed: when.
        request_hash: of the creation, if it carried an idempotency key.
        version: of this layout.
    """

    id: str
    url: str
    description: str = ""
    event_types: tuple[str, ...] = DEFAULT_EVENT_TYPES
    labels: dict[str, str] = {}
    tenant: str | None = None
    sealed_headers: str = ""
    header_names: tuple[str, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()
    scheme: SignatureScheme = SignatureScheme.V1
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 10
    retry_schedule_s: tuple[Pause, ...] = RETRY_SCHEDULE_S
    timeout_s: Pause = 15.0
    ordering: Ordering = Ordering.NONE
    drop_superseded: bool = False
    handshake: bool = False
    paused: bool = False
    epoch: Count = 1
    created: Instant
    changed: Instant
    request_hash: str = ""
    version: int = 1


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an endpoint does, under `<endpoint id> US "status"` in `<prefix>.endpoints.status`; written by its forwarder.

    Args:
        endpoint_id: whose.
        epoch: of the endpoint it was written for.
        failing_since: time of the first failure since the last success; None while it works.
        warned: whether a notice was given that it will be disabled.
        disabled_at, disabled_reason: set once it is disabled: `gone` (410) or `failing`.
        last_error: what the last failure said.
        changed: when.
        version: of this layout.
    """

    endpoint_id: str
    epoch: Count
    failing_since: Instant | None = None
    warned: bool = False
    disabled_at: Instant | None = None
    disabled_reason: str = ""
    last_error: str = ""
    changed: Instant
    version: int = 1


class TenantSecrets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What signs webhooks given inside requests, under US "tenant" US `<tenant>` in `<prefix>.endpoints`.

    Args:
        tenant: value of the label `tenant`; empty for requests without one.
        secrets: those that sign now, the newest first.
        changed: when.
        version: of this layout.
    """

    tenant: str
    secrets: tuple[SealedSecret, ...]
    changed: Instant
    version: int = 1


class Scope(StrEnum):
    """What an API key may do."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    ADMIN = "admin"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may use the API, under its id in `<prefix>.api-keys`; null once revoked.

    Args:
        id: first part of the key.
        name: for people.
        secret_hash: SHA-256 of its secret part, in hex; the part has 256 bits of chance, so that needs no salt.
        scopes: what it may do; `admin` may do everything.
        tenant: whose jobs and endpoints it sees; None for all.
        created: when.
        version: of this layout.
    """

    id: str
    name: str
    secret_hash: str
    scopes: tuple[Scope, ...]
    tenant: str | None = None
    created: Instant
    version: int = 1


class InlineWebhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A webhook given inside a request.

    Args:
        url: where.
        tenant: whose secret signs.
    """

    url: str
    tenant: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="deliver", gc=False):
    """An event that is to be delivered to an endpoint: a record of `<prefix>.dispatch`, keyed by endpoint id.

    Args:
        endpoint_id: to whom; of an inline webhook it is made from tenant and URL.
        event_id: `<request id>.<sequence>`.
        type: event type.
        request_id, sequence: of the job.
        time: of the event.
        event: the event's value, as on the result topic.
        inline: set if no registered endpoint is meant.
    """

    endpoint_id: Id
    event_id: Id
    type: str
    request_id: str
    sequence: Count
    time: Instant
    event: msgspec.Raw
    inline: InlineWebhook | None = None


class ReplayOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="replay"):
    """A wish to deliver past events once more, or for the first time.

    Args:
        replay_id: `rp_…`.
        endpoint_id: to whom.
        since, until: of the events' times, both included.
        failed_only: only deliveries that went to the dead-letter topic.
        event_id: only this event.
        created: when it was asked for.
    """

    replay_id: Id
    endpoint_id: Id
    since: Instant
    until: Instant
    failed_only: bool = False
    event_id: str | None = None
    created: Instant


class ReplayCancel(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="cancel_replay"
):
    """A wish to end a replay; what it has put in line already is still delivered."""

    replay_id: Id
    endpoint_id: Id


DispatchRecord = Order | ReplayOrder | ReplayCancel
"""The value of a record of `<prefix>.dispatch`."""


class Outcome(StrEnum):
    """How one attempt ended, or why a delivery ended without one."""

    DELIVERED = "delivered"
    FAILED = "failed"
    THROTTLED = "throttled"
    GONE = "gone"
    BLOCKED = "blocked"
    SUPERSEDED = "superseded"
    DROPPED = "dropped"


class AttemptSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One attempt as a delivery remembers it.

    Args:
        number: from 1; attempts that cost none (throttled) share the number of the next one.
        time: when it began.
        outcome: how it ended.
        status: HTTP status, 0 without one.
        error: what went wrong, in words.
        duration_s: how long it took.
    """

    number: int
    time: Instant
    outcome: Outcome
    status: int = 0
    error: str = ""
    duration_s: float = 0.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An event on its way to an endpoint, under `<endpoint id>/<event id>` in `<prefix>.deliveries`.

    The event's value lies beside it, under `<endpoint id>/<event id> US "event"`, written once.

    Args:
        endpoint_id, event_id, type, request_id, sequence, time, inline: see `Order`.
        ordered: when the dispatcher took it in.
        attempts: those made, the oldest first.
        used: how many of them counted.
        next_at: earliest time of the next one; None for at once.
        replay_id: of the replay that asked for it.
        version: of this layout.
    """

    endpoint_id: str
    event_id: str
    type: str
    request_id: str
    sequence: Count
    time: Instant
    inline: InlineWebhook | None = None
    ordered: Instant
    attempts: tuple[AttemptSummary, ...] = ()
    used: Count = 0
    next_at: Instant | None = None
    replay_id: str | None = None
    version: int = 1

    @property
    def id(self) -> str:
        """`<endpoint id>/<event id>`: unique, and the same after any crash."""
        return f"{self.endpoint_id}/{self.event_id}"


class After(StrEnum):
    """What became of a delivery with an attempt."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    DEAD = "dead"
    ENDED = "ended"


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The heads of one POST and its answer, for people; what is secret in them is masked.

    Args:
        request_headers: as sent.
        response_headers: as received.
        response_body: its beginning, as text.
    """

    request_headers: dict[str, str] = {}
    response_headers: dict[str, str] = {}
    response_body: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of `<prefix>.attempts`, keyed by endpoint id: an attempt, or an end without one.

    Args:
        delivery: the delivery after it.
        webhook_id: the header `webhook-id`.
        url: where it went, without query and fragment.
        attempt: the attempt itself; also the last of `delivery.attempts`.
        after: what became of the delivery.
        exchange: the heads; None if nothing was sent.
        version: of this layout.
    """

    delivery: Delivery
    webhook_id: str
    url: str
    attempt: AttemptSummary
    after: After
    exchange: Exchange | None = None
    version: int = 1


class DeadReason(StrEnum):
    """Why a delivery went to `<prefix>.deliveries.dead`."""

    EXHAUSTED = "exhausted"
    BACKLOG_FULL = "backlog_full"
    TOO_OLD = "too_old"


class DeadDelivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of `<prefix>.deliveries.dead`, keyed by endpoint id; can be replayed.

    Args:
        delivery: with all its attempts.
        reason: why.
        time: when.
        event: the event's value.
        version: of this layout.
    """

    delivery: Delivery
    reason: DeadReason
    time: Instant
    event: msgspec.Raw = NOTHING
    version: int = 1


class NoticeType(StrEnum):
    """What `<prefix>.endpoints.notices` tells of."""

    FAILING = "tams.endpoint.failing"
    DISABLED = "tams.endpoint.disabled"
    RECOVERED = "tams.endpoint.recovered"
    BACKLOG_FULL = "tams.endpoint.backlog-full"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of `<prefix>.endpoints.notices`, keyed by endpoint id.

    Args:
        id: unique.
        type: what happened.
        time: when.
        endpoint_id, url: to whom.
        detail: in words: what is wrong, and what to do next.
    """

    id: str
    type: NoticeType
    time: Instant
    endpoint_id: str
    url: str
    detail: str


class ReplayState(StrEnum):
    """Where a replay stands."""

    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"


class Replay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replay and how far it is, under `<endpoint id> US "replay" US <replay id>` in `<prefix>.deliveries`.

    Args:
        order: what was asked for.
        state: where it stands.
        positions: `<topic>-<partition>` → offset of the next event to look at; empty before it has begun.
        ends: `<topic>-<partition>` → offset it ends before.
        scanned: how many events were looked at.
        matched: how many of them were put in line.
        changed: when.
        version: of this layout.
    """

    order: ReplayOrder
    state: ReplayState = ReplayState.RUNNING
    positions: dict[str, int] = {}
    ends: dict[str, int] = {}
    scanned: int = 0
    matched: int = 0
    changed: Instant
    version: int = 1
