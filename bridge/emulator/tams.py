"""What TAMS does with requests about jobs: create, find, cancel; idempotence, credits, caps, retention. Pure."""

from collections import Counter

from bridge.emulator.chance import share
from bridge.emulator.faults import Fault
from bridge.emulator.gpus import Gpus
from bridge.emulator.graph import VIDEO_FACTOR
from bridge.emulator.jobs import Job, Order, Status
from bridge.emulator.script import Outcome, nth
from bridge.emulator.settings import EmulatorSettings
from bridge.emulator.wire import Refusal, RpcCode, not_found, rpc_status

IDS_PER_MILLISECOND = 1 << 19


class Tams:
    """All jobs, and what is remembered about the requests for them."""

    def __init__(self, settings: EmulatorSettings, now: float) -> None:
        """Start without jobs; ids begin where an emulator that started earlier cannot have come."""
        self._settings = settings
        self._jobs: dict[str, Job] = {}
        self._gpus = Gpus(settings.slots)
        self._last_id = int(now * 1000) * IDS_PER_MILLISECOND
        self._remembered: dict[tuple[str, str], tuple[Job, float]] = {}
        self._creates: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self.spent = 0.0

    def use(self, settings: EmulatorSettings, now: float) -> None:
        """Follow other settings from now on."""
        slots_changed = settings.slots != self._settings.slots
        self._settings = settings
        if slots_changed:
            self._gpus.replan(self._jobs.values(), settings.slots, now)

    def create(self, order: Order, now: float) -> Job:
        """Create a job, or give the one that its requestId made before; raise `Refusal` if neither can be."""
        known = self._known(order, now)
        if known and self._settings.repeat == "error":
            raise Refusal(409, rpc_status(RpcCode.ALREADY_EXISTS, "requestId already exists"))
        if known and self._settings.repeat == "same":
            return known
        self._check_limits(order, now)
        job = self._new_job(order, now)
        self._gpus.place(job, strangers=self._settings.strangers)
        self._jobs[job.id] = job
        self.spent += job.credits if job.is_charged else 0
        if order.request_id:
            # Taken out first, so that the oldest always stands first.
            self._remembered.pop((order.app, order.request_id), None)
            self._remembered[order.app, order.request_id] = job, now
        return job

    def job(self, job_id: str, now: float) -> Job:
        """Find a job; raise `Refusal` if there is none, or none any more."""
        job = self._jobs.get(job_id)
        if job is None:
            raise not_found("job")
        if now >= job.ends_at + self._settings.retention_s:
            del self._jobs[job.id]
            raise not_found("job")
        return job

    def cancel(self, job: Job, now: float) -> None:
        """Cancel a job; nothing happens if it is over."""
        was_charged = job.is_charged
        self._gpus.cancel(job, self._jobs.values(), now)
        if was_charged and not job.is_charged:
            self.spent -= job.credits

    def price(self, order: Order) -> float:
        """Give what a job costs."""
        factor = VIDEO_FACTOR if order.graph.makes_video else 1
        return round(self._settings.credits_per_output * _outputs(order) * factor, 4)

    def count_by_status(self, now: float) -> Counter[Status]:
        """Count the jobs in each state."""
        return Counter(job.status(now) for job in self._jobs.values())

    def next_create_fault(self, order: Order) -> Fault | None:
        """Give the scripted fault of a request to create, and count the request."""
        faults = order.script.http.create
        if not faults:
            return None
        self._creates[order.group] += 1
        return nth(faults, self._creates[order.group] - 1)

    def _known(self, order: Order, now: float) -> Job | None:
        oldest = now - self._settings.request_id_memory_s
        while self._remembered and self._remembered[first := next(iter(self._remembered))][1] <= oldest:
            del self._remembered[first]
        job, _ = self._remembered.get((order.app, order.request_id), (None, 0))
        return job

    def _check_limits(self, order: Order, now: float) -> None:
        cap, balance = self._settings.max_concurrent, self._settings.balance
        if cap is not None and self._gpus.live(now) >= cap:
            raise Refusal(429, rpc_status(RpcCode.RESOURCE_EXHAUSTED, "too many jobs at the same time"))
        if balance is not None and round(self.spent + self.price(order), 4) > balance:
            raise Refusal(self._settings.credits_out_status, self._settings.credits_out_body)

    def _new_job(self, order: Order, now: float) -> Job:
        settings, script = self._settings, order.script
        self._last_id += 1
        ready_at = now + _first(script.queue_s, settings.queue_s)
        pending_at = min(now + settings.created_s, ready_at)
        spread = 0.8 + 0.4 * share(settings.seed, self._last_id)
        run_s = _first(script.run_s, settings.run_s, order.graph.run_seconds() * spread)
        outcome = self._next_outcome(order)
        longest = settings.longest_run_s
        if longest is not None and (outcome is Outcome.HANG or run_s > longest):
            run_s, outcome = longest, Outcome.FATAL_ERROR
        return Job(
            id=str(self._last_id),
            order=order,
            outcome=outcome,
            credits=self.price(order),
            outputs=_outputs(order),
            created_at=now,
            pending_at=pending_at,
            waiting_at=min(pending_at + settings.pending_s, ready_at),
            ready_at=ready_at,
            run_s=run_s,
        )

    def _next_outcome(self, order: Order) -> Outcome:
        outcomes = order.script.outcomes
        if not outcomes:
            return Outcome.SUCCESS
        self._outcomes[order.group] += 1
        number = self._outcomes[order.group] - 1
        return outcomes[number] if number < len(outcomes) else Outcome.SUCCESS


def _outputs(order: Order) -> int:
    return order.graph.samples if order.script.images is None else order.script.images


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
