"""What a command said, for all tests that type commands."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


def assert_one_line(said: Said, *, about: str, code: int = 2) -> None:
    """This exit code, and one line on standard error that says what is wrong."""
    assert said.code == code, said
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("tams-bridge: ")
    assert about in said.err
