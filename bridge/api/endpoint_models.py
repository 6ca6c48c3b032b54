"""Endpoints as people give them, and as they are shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from bridge.api.inputs import Body
from bridge.core.posts import is_custom_header
from bridge.core.registry import EndpointState, matches_type
from bridge.messages import EventType
from bridge.webhook_messages import DEFAULT_EVENT_TYPES, RETRY_SCHEDULE_S, Ordering, SignatureScheme

DAY_S = 86_400.0
TENANT_MAX = 255

_HEADERS_MAX = 20
_HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"
_HEADER_VALUE = r"^[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?$"


def _known_types(patterns: Sequence[str]) -> Sequence[str]:
    for pattern in patterns:
        if not any(matches_type((pattern,), kind) for kind in EventType):
            message = (
                f"{pattern!r} matches no event type; there are {', '.join(EventType)}, and `*` stands for anything"
            )
            raise ValueError(message)
    return patterns


def _free_headers(headers: dict[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in headers.items()}
    if len(lower) < len(headers):
        message = "two names differ only in case"
        raise ValueError(message)
    taken = sorted(name for name in lower if not is_custom_header(name))
    if taken:
        message = f"{', '.join(taken)} cannot be set: we set it ourselves, or the connection does"
        raise ValueError(message)
    return lower


Pattern = Annotated[str, Field(pattern=r"^[a-z0-9.*_-]{1,100}$")]
Tenant = Annotated[str, Field(min_length=1, max_length=TENANT_MAX)]
Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="Where events are posted: https, a public host.",
        examples=["https://acme.example/hook"],
    ),
]
Patterns = Annotated[
    tuple[Pattern, ...],
    Field(
        min_length=1,
        max_length=50,
        fail_fast=True,
        description="Which events: types, in which `*` stands for anything.",
    ),
    AfterValidator(_known_types),
]
Labels = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Annotated[str, Field(max_length=1000)]],
    Field(max_length=20, description="Only events of jobs that carry all of these labels."),
]
Headers = Annotated[
    dict[Annotated[str, Field(pattern=_HEADER_NAME)], Annotated[str, Field(pattern=_HEADER_VALUE)]],
    Field(max_length=_HEADERS_MAX, description="Sent with every POST; encrypted at rest, and never shown again."),
    AfterValidator(_free_headers),
]
Description = Annotated[str, Field(max_length=1000, description="For people.")]
Rate = Annotated[
    float | None, Field(gt=0, le=10_000, allow_inf_nan=False, description="Most POSTs a second; null for no limit.")
]
MaxInFlight = Annotated[int, Field(ge=1, le=100, description="Most POSTs under way at once.")]
Schedule = Annotated[
    tuple[Annotated[float, Field(gt=0, le=7 * DAY_S, allow_inf_nan=False)], ...],
    Field(max_length=30, fail_fast=True, description="Pauses before the second, third … attempt, in seconds."),
]
Timeout = Annotated[
    float, Field(ge=1, le=60, allow_inf_nan=False, description="Longest time for a whole exchange, in seconds.")
]
OrderingField = Annotated[
    Ordering, Field(description="`job`: events of one job wait for each other; other jobs go on.")
]
DropSuperseded = Annotated[
    bool, Field(description="Whether progress is left out once a later event of the same job has overtaken it.")
]
Handshake = Annotated[
    bool, Field(description="Whether the receiver is asked for its consent first (CloudEvents, Web Hooks).")
]


class NewEndpoint(Body):
    """An endpoint to register; only `url` is required."""

    url: Url
    description: Description = ""
    event_types: Patterns = DEFAULT_EVENT_TYPES
    labels: Labels = Field(default_factory=dict)
    tenant: Tenant | None = Field(None, description="Only events of this tenant's jobs (label `tenant`).")
    headers: Headers = Field(default_factory=dict)
    scheme: SignatureScheme = Field(
        SignatureScheme.V1, description="How POSTs are signed: with a shared secret, or with a key pair."
    )
    rate: Rate = None
    max_in_flight: MaxInFlight = 10
    retry_schedule_s: Schedule = RETRY_SCHEDULE_S
    timeout_s: Timeout = 15.0
    ordering: OrderingField = Ordering.NONE
    drop_superseded: DropSuperseded = False
    handshake: Handshake = False


class EndpointChange(Body):
    """What is to be different; what is left out stays as it is, and null brings the default back."""

    url: Url = ""
    description: Description | None = None
    event_types: Patterns | None = None
    labels: Labels | None = None
    tenant: Tenant | None = Field(None, description="Only events of this tenant's jobs; null for those of all.")
    headers: Headers | None = None
    rate: Rate = None
    max_in_flight: MaxInFlight | None = None
    retry_schedule_s: Schedule | None = None
    timeout_s: Timeout | None = None
    ordering: OrderingField | None = None
    drop_superseded: DropSuperseded | None = None
    handshake: Handshake | None = None

    def changes(self) -> dict[str, object]:
        """New values by field."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        defaults = NewEndpoint.model_fields
        return {
            name: defaults[name].get_default(call_default_factory=True) if value is None else value
            for name, value in given.items()
        }


class Rotation(Body):
    """A new secret."""

    overlap_s: float = Field(
        DAY_S,
        ge=0,
        le=30 * DAY_S,
        allow_inf_nan=False,
        description="How long the secrets so far sign beside the new one, in seconds.",
    )


class SecretTimes(BaseModel):
    """When a secret was made, and until when it signs; null for the newest."""

    created: datetime
    expires: datetime | None


class Disabled(BaseModel):
    """Why and since when nothing is sent."""

    reason: str
    at: datetime


class EndpointAnswer(BaseModel):
    """An endpoint as it stands."""

    id: str
    url: str
    description: str
    event_types: list[str]
    labels: dict[str, str]
    tenant: str | None
    headers: dict[str, str] = Field(description="Names; the values are never shown.")
    scheme: SignatureScheme
    public_key: str | None = Field(description="Checks what is signed by `v1a`; null for `v1`.")
    rate: float | None
    max_in_flight: int
    retry_schedule_s: list[float]
    timeout_s: float
    ordering: Ordering
    drop_superseded: bool
    handshake: bool
    state: EndpointState
    disabled: Disabled | None
    failing_since: datetime | None
    warned: bool
    last_error: str
    pending: int = Field(description="Deliveries that wait for it, as far as this process knows.")
    secrets: list[SecretTimes]
    created: datetime
    changed: datetime


class EndpointWithSecret(EndpointAnswer):
    """An endpoint and its newest secret, which is not shown again."""

    secret: str


class TestAnswer(BaseModel):
    """A test event that is on its way."""

    event_id: str
    delivery_id: str = Field(description="Ask for it at `/v1/deliveries/{delivery_id}`.")


class TenantSecret(BaseModel):
    """A tenant's default secret, without itself."""

    tenant: str = Field(description="`-` stands for requests without tenant.")
    created: datetime
    count: int = Field(description="How many secrets sign now.")


class NewTenantSecret(TenantSecret):
    """A tenant's new default secret, which is not shown again."""

    secret: str
