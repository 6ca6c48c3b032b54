from bridge.core.in_flight import InFlightCap


def refused(cap: InFlightCap, times: int, *, in_flight: int = 8, now: float = 0.0) -> list[bool]:
    """Refuse so many creates, with a look that gets through after each; whether the cap was held responsible."""
    blamed = []
    for _ in range(times):
        blamed.append(cap.refused(in_flight, now))
        cap.other_call_passed()
    return blamed


def capped(in_flight: int = 8) -> InFlightCap:
    """A cap that TAMS has shown with so many jobs in flight."""
    cap = InFlightCap(100)
    refused(cap, 3, in_flight=in_flight)
    return cap


def test_without_a_refusal_the_limit_that_was_set_counts() -> None:
    cap = InFlightCap(100)

    assert (cap.room(30, 0.0), cap.learned) == (70, None)


def test_creates_refused_again_and_again_although_looks_get_through_show_a_cap() -> None:
    """The first two are laid at the door of the rate, which is halved twice by then."""
    cap = InFlightCap(100)

    assert refused(cap, 3) == [False, False, True]
    assert (cap.learned, cap.room(8, 0.6), cap.room(7, 0.6)) == (8, 0, 1)


def test_refusals_without_a_look_between_them_show_nothing() -> None:
    """Nothing has got through: it may be the rate."""
    cap = InFlightCap(100)

    assert [cap.refused(8, now) for now in (0.0, 0.2, 0.4, 0.6)] == [False] * 4


def test_looks_before_the_first_refusal_show_nothing() -> None:
    cap = InFlightCap(100)
    cap.other_call_passed()
    cap.other_call_passed()

    assert [cap.refused(8, now) for now in (0.0, 0.2)] == [False] * 2


def test_a_look_refused_in_between_clears_the_suspicion() -> None:
    """Everything is refused: that is the rate."""
    cap = InFlightCap(100)
    refused(cap, 2)
    cap.other_call_refused()

    assert cap.refused(8, 0.5) is False


def test_a_job_taken_in_between_clears_the_suspicion() -> None:
    cap = InFlightCap(100)
    refused(cap, 2)
    cap.taken()

    assert cap.refused(8, 0.5) is False


def test_a_cap_is_tried_again_after_a_while_by_one_job_more() -> None:
    """TAMS may have raised it, or the jobs of another worker may have ended."""
    cap = capped(8)

    assert [cap.room(8, now) for now in (9.9, 10.0, 19.9, 20.0)] == [0, 1, 1, 2]


def test_a_large_cap_is_tried_by_a_tenth() -> None:
    assert capped(80).room(80, 10.0) == 8


def test_a_learned_cap_never_goes_beyond_the_limit_that_was_set() -> None:
    assert capped(100).room(100, 10.0) == 0


def test_a_cap_leaves_room_for_one_job_even_if_none_of_ours_is_in_flight() -> None:
    """Other workers may have filled TAMS; with no room at all, nobody would ever ask again."""
    assert capped(0).room(0, 0.1) == 1


def test_a_cap_met_again_is_known_at_once() -> None:
    """The trial has failed; the rate has nothing to do with it."""
    cap = capped(8)
    cap.taken()

    assert cap.refused(8, 40.0) is True
    assert (cap.learned, cap.room(8, 49.9), cap.room(8, 50.0)) == (8, 0, 1)


def test_a_refusal_below_a_known_cap_is_laid_at_the_door_of_the_rate() -> None:
    assert capped(8).refused(5, 40.0) is False
