"""Faults as data, and plans of them: what goes wrong, with what, when and for how long. Pure; `injection` does it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """What goes wrong."""

    KILL = "SIGKILL, then another process"
    PAUSE = "SIGSTOP, then SIGCONT"
    RESTART = "SIGTERM, then another process"
    JOIN = "one more joins, and leaves"
    CLOCK = "the clock is stepped, and back"
    NODE_KILL = "broker killed, started again"
    NODE_PAUSE = "broker stopped, goes on"
    LEADERS = "leaders moved"
    PARTITIONS = "partitions added to result topics"
    CUT = "connections cut"
    STALL = "connections stall"
    SLOW = "connections slow"
    HALF_CLOSE = "connections half closed"
    REFUSE = "connections refused"
    IN_HAND = "TAMS answers 202"
    THROTTLED = "TAMS answers 429"
    BROKEN = "TAMS answers 5xx"
    GARBAGE = "TAMS answers garbage"
    LATE = "TAMS answers late"
    NEVER = "TAMS does not answer"


WORKERS = ("worker-1", "worker-2")
FORWARDERS = ("forwarder-1", "forwarder-2")
APIS = ("api-1",)
SPARE = "worker-3"
NODES = ("node-1", "node-2", "node-3")
KAFKA_LINKS = ("to node-1", "to node-2", "to node-3", "to all nodes")
TAMS_LINK, RECEIVERS_LINK = "to TAMS", "to receivers"
TAMS = "TAMS"
BROKERS = "brokers"

_LINK_KINDS = (Kind.CUT, Kind.STALL, Kind.SLOW, Kind.HALF_CLOSE, Kind.REFUSE)
_ANSWERS = (Kind.IN_HAND, Kind.THROTTLED, Kind.BROKEN, Kind.GARBAGE, Kind.LATE, Kind.NEVER)
_AT_ONCE = frozenset({Kind.CUT, Kind.HALF_CLOSE, Kind.LEADERS, Kind.RESTART, Kind.PARTITIONS})
"""What is over as soon as it has happened."""

_SETTLES_S: Mapping[Kind, float] = {
    Kind.KILL: 4.0,
    Kind.RESTART: 5.0,
    Kind.JOIN: 3.0,
    Kind.NODE_KILL: 6.0,
    Kind.NODE_PAUSE: 3.0,
    Kind.LEADERS: 1.0,
}
"""How long afterwards the same thing is left alone, so that it gets to work at all."""

_DECK: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    *((kind, targets) for kind in (Kind.KILL, Kind.PAUSE) for targets in (WORKERS, WORKERS, (*FORWARDERS, *APIS))),
    *((Kind.RESTART, targets) for targets in (WORKERS, (*FORWARDERS, *APIS))),
    (Kind.JOIN, (SPARE,)),
    (Kind.CLOCK, WORKERS),
    (Kind.NODE_KILL, NODES),
    (Kind.NODE_PAUSE, NODES),
    (Kind.LEADERS, (BROKERS,)),
    (Kind.PARTITIONS, (BROKERS,)),
    *((kind, targets) for kind in _LINK_KINDS for targets in (KAFKA_LINKS, (TAMS_LINK,), (RECEIVERS_LINK,))),
    *((kind, (TAMS,)) for kind in _ANSWERS),
)
"""Every kind with all it may befall: a plan goes through it in an order that chance gives, then begins again."""

_FIRST_S = 0.5
_PAUSES_S = (0.2, 1.2)
_LENGTHS_S = (0.5, 4.5)
_LONG_S = (0.5, 8.0)
"""Of pauses: some are shorter than a session, some longer."""

_LONGEST_STEP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: what.
        target: with what: a process, a node, a link, or TAMS.
        for_s: how long, until it is put right.
        amount: s that a clock is stepped, or that a slow link or a late answer takes; the share of the calls to TAMS
            that its other answers befall.
    """

    kind: Kind
    target: str
    for_s: float = 0.0
    amount: float = 0.0

    @property
    def lane(self) -> str:
        """What it takes up: of the faults of one lane no two hold at once, so that one broker is down at the most."""
        if self.kind is Kind.CLOCK:
            return f"clock of {self.target}"
        return BROKERS if self.target in {*NODES, *KAFKA_LINKS} else self.target


Plan = Sequence[tuple[float, Fault]]
"""Each fault with its time, s from the beginning; in the order of time."""


def draw_plan(seed: int, duration_s: float) -> Plan:
    """The plan of a seed: always the same; every fault is put right within the duration.

    Args:
        seed: of chance.
        duration_s: s from the first fault's chance to begin to the last one's end.
    """
    chance = Random(seed)
    cards = _cards(chance)
    waiting: list[tuple[Kind, tuple[str, ...]]] = []
    free_at: dict[str, float] = {}
    plan: list[tuple[float, Fault]] = []
    at = _FIRST_S
    while at < duration_s - _LENGTHS_S[0]:
        while len(waiting) < len(_DECK) // 2:
            waiting.append(next(cards))
        for card in waiting:
            fault = _drawn(card, chance, longest_s=duration_s - at, step_s=min(_LONGEST_STEP_S, duration_s / 2))
            if free_at.get(fault.lane, 0.0) <= at:
                free_at[fault.lane] = at + fault.for_s + _SETTLES_S.get(fault.kind, 0.5)
                plan.append((at, fault))
                waiting.remove(card)
                break
        at += chance.uniform(*_PAUSES_S)
    return plan


def _cards(chance: Random) -> Iterator[tuple[Kind, tuple[str, ...]]]:
    while True:
        yield from chance.sample(_DECK, len(_DECK))


def _drawn(card: tuple[Kind, tuple[str, ...]], chance: Random, *, longest_s: float, step_s: float) -> Fault:
    kind, targets = card
    target = chance.choice(targets)
    length_s = 0.0 if kind in _AT_ONCE else chance.uniform(*(_LONG_S if kind is Kind.PAUSE else _LENGTHS_S))
    match kind:
        case Kind.CLOCK:
            amount = chance.choice((-1, 1)) * chance.uniform(step_s / 3, step_s)
        case Kind.SLOW:
            amount = chance.uniform(0.02, 0.3)
        case Kind.LATE:
            amount = chance.uniform(0.3, 1.5)
        case _:
            amount = chance.uniform(0.3, 1.0) if kind in _ANSWERS else 0.0
    return Fault(kind=kind, target=target, for_s=round(min(length_s, longest_s), 3), amount=round(amount, 3))
