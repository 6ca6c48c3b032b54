"""What health says while brokers answer, but take nothing."""

from bridge.roles.ground import unconfirmed_problems

NOW = 1000.0


def test_what_is_confirmed_or_has_been_written_just_now_is_no_problem() -> None:
    assert unconfirmed_problems([], now=NOW) == []
    assert unconfirmed_problems([None, NOW, NOW - 4.9], now=NOW) == []


def test_the_oldest_write_that_is_not_confirmed_is_told_with_what_to_look_at() -> None:
    [problem] = unconfirmed_problems([NOW - 6.0, None, NOW - 61.4], now=NOW)

    assert problem == "kafka: what was written 61 s ago is not confirmed: are enough brokers up and in sync?"
