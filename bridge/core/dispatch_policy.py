"""What the operator chooses about deliveries, and the time by which they are judged."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bridge.core.health import HealthPolicy
from bridge.core.schedule import BackOff


@dataclass(frozen=True, slots=True)
class Moment:
    """The time on both clocks.

    Args:
        now: the wall clock, for what is written down.
        monotonic: seconds, for pauses within this process.
    """

    now: datetime
    monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPolicy:
    """What the operator chose about deliveries.

    Args:
        max_pending: most deliveries kept for one endpoint.
        max_held: deliveries of a partition beyond which only a fair share is kept for an endpoint that takes none.
        max_age: a delivery older than this is given up.
        longest_pause: longest `Retry-After` that is followed.
        breaker_threshold: failures in a row after which only probes are sent.
        breaker: pauses between probes.
        disabled_probe: pause between probes of an endpoint that is disabled for failing.
        health: when endpoints are warned of and disabled.
    """

    max_pending: int = 10_000
    max_held: int = 200_000
    max_age: timedelta = timedelta(days=7)
    longest_pause: timedelta = timedelta(hours=1)
    breaker_threshold: int = 5
    breaker: BackOff = field(default_factory=lambda: BackOff(initial=timedelta(seconds=5), limit=timedelta(minutes=5)))
    disabled_probe: timedelta = timedelta(hours=1)
    health: HealthPolicy = field(default_factory=HealthPolicy)
