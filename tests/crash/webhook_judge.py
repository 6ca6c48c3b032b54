"""What must be true of deliveries whatever happened to the forwarders, as a function of what outsiders saw.

The evidence comes from the topics (read_committed) and from the receivers' own log; nothing in here knows the bridge's
code.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[str, str]
"""To whom (an endpoint's id, or the URL of a webhook given inside a request), and the event's id."""

COSTS_NOTHING = frozenset({"throttled", "gone"})
ENDS = frozenset({"delivered", "dead", "ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """How a receiver behaves, and so what may be recorded of it.

    Args:
        outcomes: those an attempt may have.
        attempts: how many a delivery has before it is dead.
        is_healthy: whether it takes what it gets.
        is_ordered: whether events of one job come one after the other.
    """

    outcomes: frozenset[str]
    attempts: int
    is_healthy: bool = False
    is_ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A whole POST as its receiver saw it.

    Args:
        place: by its path and its body.
        webhook_id: the header.
        digest: of its body.
        problem: what a stranger's verifier said; empty if it is content.
    """

    place: Place
    webhook_id: str
    digest: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One attempt as a delivery remembers it."""

    number: int
    outcome: str
    time: str
    status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One record of the attempts topic.

    Args:
        place: of the delivery.
        webhook_id: the header, as told.
        made: the attempt.
        tries: all that the delivery remembers.
        after: what became of the delivery.
    """

    place: Place
    webhook_id: str
    made: Try
    tries: tuple[Try, ...]
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """One record of the topic of dead deliveries; `event_id` is of the event that it carries."""

    place: Place
    reason: str
    tries: tuple[Try, ...]
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A delivery that the ledger holds; `event_id` is of the event beside it, empty if there is none."""

    tries: tuple[Try, ...]
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvidence:
    """All that is known from outside, once the last forwarder has ended.

    Args:
        receivers: to whom → how it behaves.
        orders: every delivery that was ordered, once.
        receipts: in the order of their arrival.
        recorded: the attempts topic, in the order of its partitions.
        dead: the dead deliveries.
        ledger: what is pending.
        leftovers: keys of the ledger that belong to no delivery.
        contacts: how often somebody came to where the redirects lead.
        positions: partition → where the ledger says that reading goes on.
        ends: partition → end of the dispatch topic.
    """

    receivers: Mapping[str, Receiver]
    orders: Sequence[Place]
    receipts: Sequence[Receipt]
    recorded: Sequence[Recorded]
    dead: Sequence[Dead]
    ledger: Mapping[Place, Kept]
    leftovers: Sequence[str] = ()
    contacts: int = 0
    positions: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)


def judge_webhooks(evidence: WebhookEvidence) -> list[str]:
    """Everything that is wrong; empty if every promise was kept."""
    stories: defaultdict[Place, list[Recorded]] = defaultdict(list)
    for record in evidence.recorded:
        stories[record.place].append(record)
    arrived: defaultdict[Place, list[Receipt]] = defaultdict(list)
    for receipt in evidence.receipts:
        arrived[receipt.place].append(receipt)
    complaints = [f"{place}: nobody ordered it" for place in {*stories, *arrived} - {*evidence.orders}]
    for place in evidence.orders:
        receiver, receipts, story = evidence.receivers[place[0]], arrived.get(place, []), stories.get(place, [])
        complaints += _receipt_complaints(place, receiver, receipts, story)
        complaints += _story_complaints(place, receiver, story)
        complaints += _ledger_complaints(place, story, evidence.ledger.get(place))
    complaints += _dead_complaints(evidence, stories)
    complaints += _id_complaints(evidence)
    complaints += _order_complaints(evidence)
    complaints += _leftover_complaints(evidence)
    return complaints


def repeats(evidence: WebhookEvidence) -> int:
    """How many receipts at healthy receivers were not the first of their event: what crashes cost."""
    healthy = [each.place for each in evidence.receipts if evidence.receivers[each.place[0]].is_healthy]
    return len(healthy) - len(set(healthy))


def _receipt_complaints(
    place: Place, receiver: Receiver, receipts: Sequence[Receipt], story: Sequence[Recorded]
) -> Iterator[str]:
    """Every receipt is genuine, and agrees with what was recorded."""
    if receiver.is_healthy and not receipts:
        yield f"{place}: never received"
    for receipt in receipts:
        if receipt.problem:
            yield f"{place}: the signature does not hold: {receipt.problem}"
    if len({receipt.digest for receipt in receipts}) > 1:
        yield f"{place}: a repeat has another body"
    answered = sum(1 for record in story if record.made.status)
    if answered > len(receipts):
        yield f"{place}: {answered} answers on record, but {len(receipts)} receipts"


def _story_complaints(place: Place, receiver: Receiver, story: Sequence[Recorded]) -> Iterator[str]:
    """One delivery's attempts: without a gap, each told with all before it, and nothing after the end."""
    past: list[Try] = []
    for record in story:
        expected = 1 + sum(1 for each in past if each.outcome not in COSTS_NOTHING)
        if record.made.number != expected:
            yield f"{place}: attempt {record.made.number} on record where {expected} was due"
        past.append(record.made)
        if record.tries[-1] != record.made or _remembered_for_good(record.tries) != _remembered_for_good(past):
            yield f"{place}: attempt {record.made.number} does not tell of those before it"
        if record.made.outcome not in receiver.outcomes:
            yield f"{place}: {record.made.outcome} on record, which cannot be"
        if record.after != _due_after(receiver, past):
            yield f"{place}: {record.after} after attempt {record.made.number}, which was {record.made.outcome}"
    if any(record.after in ENDS for record in story[:-1]):
        yield f"{place}: an attempt after its end"
    if receiver.is_healthy and (not story or story[-1].after != "delivered"):
        yield f"{place}: not delivered, though its receiver is healthy"


def _due_after(receiver: Receiver, past: Sequence[Try]) -> str:
    if past[-1].outcome == "delivered":
        return "delivered"
    is_last = past[-1].outcome not in COSTS_NOTHING and past[-1].number >= receiver.attempts
    return "dead" if is_last else "waiting"


def _remembered_for_good(tries: Sequence[Try]) -> list[Try]:
    """A delivery forgets the oldest of what cost nothing."""
    return [each for each in tries if each.outcome not in COSTS_NOTHING]


def _ledger_complaints(place: Place, story: Sequence[Recorded], kept: Kept | None) -> Iterator[str]:
    """Pending is what was ordered and has not ended, and nothing else."""
    if story and story[-1].after in ENDS:
        if kept is not None:
            yield f"{place}: {story[-1].after}, and still pending"
        return
    if kept is None:
        yield f"{place}: neither ended nor pending"
        return
    if kept.tries != (story[-1].tries if story else ()):
        yield f"{place}: pending with other attempts than those on record"
    if kept.event_id != place[1]:
        yield f"{place}: pending beside the event {kept.event_id!r}"


def _dead_complaints(evidence: WebhookEvidence, stories: Mapping[Place, Sequence[Recorded]]) -> Iterator[str]:
    """Each delivery that was given up lies once in the topic of dead ones, with all its attempts and its event."""
    found = Counter(each.place for each in evidence.dead)
    expected = {place for place, story in stories.items() if story[-1].after == "dead"}
    for place in expected | found.keys():
        if found[place] != (place in expected):
            yield f"{place}: {found[place]} dead deliveries, expected {int(place in expected)}"
    for dead in evidence.dead:
        story, receiver = stories.get(dead.place, ()), evidence.receivers[dead.place[0]]
        if dead.reason != "exhausted" or (story and dead.tries != story[-1].tries):
            yield f"{dead.place}: dead as {dead.reason}, with other attempts than those on record"
        if sum(1 for each in dead.tries if each.outcome not in COSTS_NOTHING) != receiver.attempts:
            yield f"{dead.place}: dead without all its {receiver.attempts} attempts"
        if dead.event_id != dead.place[1]:
            yield f"{dead.place}: dead beside the event {dead.event_id!r}"


def _id_complaints(evidence: WebhookEvidence) -> Iterator[str]:
    """A delivery goes by one webhook-id, always, and no other delivery by the same."""
    ids: defaultdict[Place, set[str]] = defaultdict(set)
    places: defaultdict[str, set[Place]] = defaultdict(set)
    told = {(each.place, each.webhook_id) for each in evidence.receipts}
    for place, name in told | {(each.place, each.webhook_id) for each in evidence.recorded}:
        ids[place].add(name)
        places[name].add(place)
    yield from (f"{place}: several webhook-ids: {sorted(found)}" for place, found in ids.items() if len(found) > 1)
    yield from (f"{name}: the webhook-id of {sorted(found)}" for name, found in places.items() if len(found) > 1)


def _order_complaints(evidence: WebhookEvidence) -> Iterator[str]:
    """Where order was asked for, an event of a job is first received after all before it."""
    latest: dict[tuple[str, str], int] = {}
    seen: set[Place] = set()
    for receipt in evidence.receipts:
        to, event_id = receipt.place
        if not evidence.receivers[to].is_ordered or receipt.place in seen:
            continue
        seen.add(receipt.place)
        job, _, number = event_id.rpartition(".")
        if int(number) < latest.get((to, job), 0):
            yield f"{receipt.place}: first received after event {latest[to, job]} of its job"
        latest[to, job] = int(number)


def _leftover_complaints(evidence: WebhookEvidence) -> Iterator[str]:
    for key in evidence.leftovers:
        yield f"the ledger keeps {key!r}, which belongs to no delivery"
    if evidence.contacts:
        yield f"{evidence.contacts} connections to where the redirects lead"
    for partition, end in evidence.ends.items():
        if evidence.positions.get(partition) != end:
            yield f"partition {partition}: read to {evidence.positions.get(partition)}, and it ends at {end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """One record of the dispatch topic; `event` is the event it carries."""

    place: Place
    event: Mapping[str, object]


def judge_orders(
    wanted: Sequence[Place], events: Mapping[str, Mapping[str, object]], orders: Sequence[Ordered]
) -> list[str]:
    """What is wrong with the orders that workers wrote.

    Args:
        wanted: who is to get what, by the events that were published.
        events: as published, by their ids.
        orders: in the order of their partitions.
    """
    expected, found = Counter(wanted), Counter(each.place for each in orders)
    complaints = [
        f"{place}: {found[place]} orders, expected {expected[place]}"
        for place in expected | found
        if expected[place] != found[place]
    ]
    latest: dict[tuple[str, str], int] = {}
    for order in orders:
        to, event_id = order.place
        if order.event != events.get(event_id):
            complaints.append(f"{order.place}: ordered with another event than was published")
        job, _, number = event_id.rpartition(".")
        if int(number) < latest.get((to, job), 0):
            complaints.append(f"{order.place}: ordered after event {latest[to, job]} of its job")
        latest[to, job] = int(number)
    return complaints
