"""What the parts of health that all roles share say."""

import msgspec
import pytest

from bridge.core.registry import Registry, endpoint_key
from bridge.errors import CannotStart
from bridge.roles.ground import ownership_problems, refuse_newer
from tests.core.webhook_examples import endpoint


def test_nothing_is_wrong_while_all_partitions_are_open() -> None:
    assert ownership_problems({0, 1}, {0, 1}, {}, "request") == []


def test_each_reason_is_told_once_with_the_partitions_it_keeps_closed() -> None:
    """The words are those of what went wrong, as far as anything did."""
    reasons = {1: "the ledger holds a JobRecord of layout 2", 2: "open: no answer", 4: "open: no answer"}

    assert ownership_problems(range(5), {0}, reasons, "request") == [
        "kafka: request partitions [1] are assigned but not open: the ledger holds a JobRecord of layout 2",
        "kafka: request partitions [2, 4] are assigned but not open: open: no answer",
        "kafka: request partitions [3] are assigned but not open: being restored",
    ]


def test_registry_of_a_later_release_ends_the_process_with_the_key_and_what_to_do() -> None:
    registry = Registry()
    refuse_newer(registry)
    registry.apply(endpoint_key("ep_a"), msgspec.json.encode(msgspec.structs.replace(endpoint(), version=2)))

    with pytest.raises(
        CannotStart, match=r"registry holds, under 'ep_a', a record \(Endpoint\) of layout 2.*: run that release"
    ):
        refuse_newer(registry)
