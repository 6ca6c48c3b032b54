"""Runs a target on many inputs, and names the one that it did not stand.

Each input follows from the seed, the target's name and the input's number alone, so that one of them can be made again
without the others. The environment says how far to go:

    BRIDGE_FUZZ_INPUTS   inputs over all targets, about; `SHARES` if not set. Many take `--timeout=0`, too
    BRIDGE_FUZZ_SEED     a number; another one makes other inputs
    BRIDGE_FUZZ_ONLY     number of the one input to be made
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar

CaseT = TypeVar("CaseT")

SHARES: Mapping[str, int] = {
    "requests": 30_000,
    "tams answers": 30_000,
    "tams client": 2_000,
    "jobs of a partition": 20_000,
    "jobs ledger": 15_000,
    "deliveries of a partition": 15_000,
    "deliveries ledger": 10_000,
    "answers of receivers": 10_000,
    "registry": 8_000,
    "patterns": 8_000,
    "api keys": 5_000,
    "views of the api": 10_000,
    "looks": 10_000,
    "run times": 1_500,
    "slots": 8_000,
    "api": 3_000,
    "signature headers": 10_000,
    "secrets": 5_000,
    "sealed secrets": 3_000,
    "urls": 10_000,
    "settings": 1_000,
    "request files": 5_000,
    "event streams": 5_000,
    "tams wire": 1_000,
    "receivers wire": 1_000,
    "record batches": 5_000,
}
"""Inputs of each target."""

CPU_LIMIT_S = 2.0
"""Longest time that one case may take of a core; those that were measured take a thousandth of it."""

_SEED = 20260301
_SHOWN = 1_500


def fuzz(
    name: str,
    make: Callable[[Random], CaseT],
    check: Callable[[CaseT], None],
    *,
    size: Callable[[CaseT], int] = lambda _: 1,
) -> None:
    """Check as many cases as hold the target's share of inputs.

    Args:
        name: of the target, one of `SHARES`.
        make: makes a case from chance.
        check: raises whatever it likes if the case shows a fault.
        size: how many inputs a case is.

    Raises:
        AssertionError: a case has shown a fault, or has taken too long.
    """
    seed = int(os.environ.get("BRIDGE_FUZZ_SEED", _SEED))
    left = share_of(name)
    for number in _numbers():
        case = make(Random(f"{seed} {name} {number}"))
        began = time.thread_time()
        try:
            check(case)
        except Exception as error:
            raise AssertionError(_told(name, seed, number, f"{type(error).__name__}: {error}", case)) from error
        took = time.thread_time() - began
        assert took < CPU_LIMIT_S, _told(name, seed, number, f"it took {took:.1f} s of a core", case)
        left -= size(case)
        if left <= 0:
            return


def check_words(error: Exception, *, most: int, hidden: Sequence[str] = ()) -> None:
    """What a person is told: something, not endlessly much, text that can be written, and no secret."""
    words = str(error)
    assert 0 < len(words) <= most
    words.encode()
    assert not [secret for secret in hidden if secret in words]


def share_of(name: str) -> int:
    """How many inputs a target is to see in this run."""
    wanted = os.environ.get("BRIDGE_FUZZ_INPUTS")
    if wanted is None:
        return SHARES[name]
    return max(1, int(wanted) * SHARES[name] // sum(SHARES.values()))


def _numbers() -> Iterable[int]:
    only = os.environ.get("BRIDGE_FUZZ_ONLY")
    number = 0
    if only is not None:
        yield int(only)
        return
    while True:
        yield number
        number += 1


def _told(name: str, seed: int, number: int, what: str, case: object) -> str:
    shown = repr(case)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}… ({len(shown)} characters)"
    again = f"BRIDGE_FUZZ_SEED={seed} BRIDGE_FUZZ_ONLY={number}"
    return f"{name}, input {number} of seed {seed} (again: {again}): {what[:_SHOWN]}\n{shown}"
