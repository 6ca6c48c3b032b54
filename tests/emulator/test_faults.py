from typing import Any

import pytest
from pydantic import ValidationError

from bridge.emulator.faults import Fault, FaultRule, FaultRules
from bridge.emulator.wire import Answer

NORMAL = Answer(body=b'{"job": {}}')


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        ({"status": 500}, False),
        ({"status": 202}, False),
        ({"html": True}, False),
        ({"cut": "before"}, False),
        ({"cut": "after"}, True),
        ({"malformed": True}, True),
        ({"delay_s": 3}, True),
        ({"drip_s": 3}, True),
        ({"status": 500, "effect": "done"}, True),
        ({"delay_s": 3, "effect": "none"}, False),
    ],
)
def test_each_fault_says_whether_the_request_is_carried_out(fault: dict[str, Any], done: bool) -> None:  # noqa: FBT001
    calls: list[bool] = []

    def action() -> Answer:
        calls.append(True)
        return NORMAL

    Fault.model_validate(fault).carry_out(action)
    assert bool(calls) is done


def test_a_status_comes_with_a_body_and_retry_after() -> None:
    answer = Fault(status=503, retry_after=7, body={"code": 14}).carry_out(lambda: NORMAL)
    assert (answer.status, answer.body, answer.headers) == (503, b'{"code":14}', {"Retry-After": "7"})


def test_a_body_of_text_is_sent_as_it_is() -> None:
    assert Fault(status=500, body="oops").carry_out(lambda: NORMAL).body == b"oops"


def test_a_slow_fault_keeps_the_answer() -> None:
    answer = Fault(delay_s=2, drip_s=3).carry_out(lambda: NORMAL)
    assert (answer.body, answer.delay_s, answer.drip_s) == (NORMAL.body, 2, 3)


def test_a_fault_has_to_do_something() -> None:
    with pytest.raises(ValidationError, match="a fault needs one of"):
        Fault()


def rules(**rule: Any) -> FaultRules:
    made = FaultRules()
    made.add([FaultRule.model_validate({"fault": {"status": 500}, **rule})])
    return made


def test_a_rule_befalls_what_it_matches_so_many_times() -> None:
    made = rules(match={"method": "GET", "path_prefix": "/v1/jobs/"}, times=2)
    taken = [made.take(method, "/v1/jobs/1") is not None for method in ("POST", "GET", "GET", "GET")]
    assert taken == [False, True, True, False]
    assert made.take("GET", "/outputs/1") is None


def test_a_rule_may_befall_a_share_and_always_the_same() -> None:
    first, second = rules(probability=0.3, seed=5), rules(probability=0.3, seed=5)
    taken = [first.take("GET", "/") is not None for _ in range(1000)]
    assert 200 < sum(taken) < 400
    assert taken == [second.take("GET", "/") is not None for _ in range(1000)]


def test_cleared_rules_befall_nothing() -> None:
    made = rules()
    made.clear()
    assert made.take("GET", "/") is None
