"""How an endpoint does over days: when its owner is warned, and when it is disabled.

works ──failures in a row──► failing ──`warn_after`──► warned ──`disable_after`──► disabled (failing)
  ▲                             │                         │                             │
  └───────── a success ─────────┴─────────────────────────┴──── a probe that succeeds ──┘
any ──410──► disabled (gone), until the user enables it again: answers that come late change nothing

Time alone changes nothing either: each step takes a failure, so that nobody is disabled without a warning before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from bridge.webhook_messages import EndpointStatus, NoticeType

GONE = "gone"
FAILING = "failing"

_KEPT = "its deliveries are kept, and go on when it is enabled again"

Told = list[tuple[NoticeType, str]]
"""Notices to give, each with its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """How long an endpoint may fail.

    Args:
        warn_after: before its owner is warned.
        disable_after: before it is disabled.
    """

    warn_after: timedelta = timedelta(days=1)
    disable_after: timedelta = timedelta(days=5)


class EndpointHealth:
    """The status of one endpoint, and what changes it.

    Args:
        endpoint_id: whose.
        epoch: of the endpoint as registered.
        status: as the registry has it; None while it works.
        policy: how long it may fail.
    """

    def __init__(self, endpoint_id: str, epoch: int, status: EndpointStatus | None, policy: HealthPolicy) -> None:
        self._endpoint_id = endpoint_id
        self._epoch = epoch
        self._status = status
        self._policy = policy
        self._first_failure: datetime | None = None
        self._unsendable = False
        self._is_new = False

    @property
    def disabled(self) -> str:
        """Why it is disabled; empty if it is not."""
        return self._status.disabled_reason if self._status is not None else ""

    @property
    def is_failing(self) -> bool:
        """Whether it was known to fail when it was last heard of."""
        return self._status is not None and self._status.failing_since is not None

    def follow(self, epoch: int) -> bool:
        """Take notice of the registered epoch; True if the endpoint was enabled anew: all is forgotten then."""
        if epoch == self._epoch:
            return False
        self._epoch, self._status, self._first_failure, self._unsendable = epoch, None, None, False
        return True

    def adopt(self, status: EndpointStatus | None) -> bool:
        """Take notice of the registered status; True if a former owner of the endpoint wrote it, and it is news.

        An owner that had not heard yet that the endpoint is gone may have written something else behind it, which is
        all that others will find: that it is gone is then written once more.
        """
        if status is None:
            return False
        if self._status is not None and _weight(status) <= _weight(self._status):
            self._is_new = self._is_new or (self.disabled == GONE and status.disabled_reason != GONE)
            return False
        self._status = status
        return True

    def succeeded(self, now: datetime) -> Told:
        """The receiver took a delivery."""
        before, self._first_failure, self._unsendable = self._status, None, False
        if before is None or before.failing_since is None or before.disabled_reason == GONE:
            return []
        self._set(EndpointStatus(endpoint_id=self._endpoint_id, epoch=self._epoch, changed=now))
        return [(NoticeType.RECOVERED, "the receiver takes deliveries again")] if before.warned else []

    def failed(self, error: str, now: datetime, *, repeatedly: bool) -> Told:
        """The receiver failed.

        Args:
            error: how.
            now: the wall clock.
            repeatedly: whether that was one of many in a row; a single failure is no news.
        """
        if self.disabled == GONE:
            return []
        self._first_failure = self._first_failure or now
        status = self._status or EndpointStatus(endpoint_id=self._endpoint_id, epoch=self._epoch, changed=now)
        if status.failing_since is None:
            if repeatedly:
                self._set(replace(status, failing_since=self._first_failure, last_error=error, changed=now))
            return []
        since, failing = status.failing_since.isoformat(), now - status.failing_since
        if not status.warned and failing >= self._policy.warn_after:
            self._set(replace(status, warned=True, last_error=error, changed=now))
            until = max(now, status.failing_since + self._policy.disable_after).isoformat()
            return [(NoticeType.FAILING, f"failing since {since}: {error}; disabled if it still fails at {until}")]
        if status.warned and failing >= self._policy.disable_after and not status.disabled_reason:
            self._set(replace(status, disabled_at=now, disabled_reason=FAILING, last_error=error, changed=now))
            return [(NoticeType.DISABLED, f"disabled after failing since {since}: {error}; {_KEPT}")]
        return []

    def gone(self, error: str, now: datetime) -> Told:
        """The receiver wants no more events."""
        if self.disabled == GONE:
            return []
        status = self._status or EndpointStatus(endpoint_id=self._endpoint_id, epoch=self._epoch, changed=now)
        self._set(replace(status, disabled_at=now, disabled_reason=GONE, last_error=error, changed=now))
        return [(NoticeType.DISABLED, f"disabled: {error}; {_KEPT}")]

    def unsendable(self, error: str) -> Told:
        """Nothing can be sent for a reason that lies with us; told once."""
        if self._unsendable:
            return []
        self._unsendable = True
        return [(NoticeType.FAILING, error)]

    def take_status(self) -> EndpointStatus | None:
        """The status, if it has changed since this was last asked."""
        is_new, self._is_new = self._is_new, False
        return self._status if is_new else None

    def _set(self, status: EndpointStatus) -> None:
        self._status, self._is_new = status, True


def _weight(status: EndpointStatus) -> tuple[bool, datetime]:
    """Of two of an epoch the heavier one holds: what is gone stays gone, else the later one counts."""
    return status.disabled_reason == GONE, status.changed
