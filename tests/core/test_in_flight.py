from bridge.core.in_flight import InFlightCap


def capped(in_flight: int = 8, now: float = 0.0) -> InFlightCap:
    """A cap that TAMS has shown with so many jobs in flight."""
    cap = InFlightCap(100)
    cap.refused(in_flight, now)
    cap.other_call_passed()
    cap.refused(in_flight, now)
    return cap


def test_without_a_refusal_the_limit_that_was_set_counts() -> None:
    cap = InFlightCap(100)

    assert (cap.room(30, 0.0), cap.learned) == (70, None)


def test_a_first_refusal_is_laid_at_the_door_of_the_rate() -> None:
    cap = InFlightCap(100)

    assert cap.refused(8, 0.0) is False
    assert cap.learned is None


def test_creates_refused_again_although_looks_get_through_show_a_cap() -> None:
    cap = InFlightCap(100)
    cap.refused(8, 0.0)
    cap.other_call_passed()

    assert cap.refused(8, 0.5) is True
    assert (cap.learned, cap.room(8, 0.6), cap.room(7, 0.6)) == (8, 0, 1)


def test_refusals_without_a_look_between_them_show_nothing() -> None:
    """Nothing has got through: it may be the rate."""
    cap = InFlightCap(100)
    cap.refused(8, 0.0)

    assert [cap.refused(8, now) for now in (0.2, 0.4)] == [False, False]


def test_a_look_before_the_first_refusal_shows_nothing() -> None:
    cap = InFlightCap(100)
    cap.other_call_passed()

    assert [cap.refused(8, now) for now in (0.2, 0.4)] == [False, False]


def test_a_job_taken_in_between_clears_the_suspicion() -> None:
    cap = InFlightCap(100)
    cap.refused(8, 0.0)
    cap.other_call_passed()
    cap.taken()

    assert cap.refused(8, 0.5) is False


def test_a_cap_is_tried_again_after_half_a_minute_by_one_job_more() -> None:
    """TAMS may have raised it, or the jobs of another worker may have ended."""
    cap = capped(8)

    assert [cap.room(8, now) for now in (29.9, 30.0, 59.9, 60.0)] == [0, 1, 1, 2]


def test_a_large_cap_is_tried_by_a_twentieth() -> None:
    assert capped(80).room(80, 30.0) == 4


def test_a_learned_cap_never_goes_beyond_the_limit_that_was_set() -> None:
    cap = capped(100)

    assert cap.room(100, 30.0) == 0


def test_a_cap_leaves_room_for_one_job_even_if_none_of_ours_is_in_flight() -> None:
    """Other workers may have filled TAMS; with no room at all, nobody would ever ask again."""
    assert capped(0).room(0, 0.1) == 1


def test_a_cap_shown_again_counts_from_then_on() -> None:
    cap = capped(8)
    cap.room(8, 30.0)
    cap.other_call_passed()

    assert cap.refused(6, 40.0) is True
    assert (cap.learned, cap.room(6, 69.9), cap.room(6, 70.0)) == (6, 0, 1)
