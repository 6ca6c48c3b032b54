import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.crash.load import SCRIPTS, graph
from tests.crash.processes import opened
from tests.crash.system import QuickBroker, System, await_partitions, running_system
from tests.crash.webhook_judge import judge_orders, judge_webhooks, repeats
from tests.crash.webhook_system import SICK, Subscriber, WebhookSystem, running_webhooks

SEED = int(os.environ.get("BRIDGE_CRASH_SEED") or secrets.randbits(16))
EVENTS = 2_000
OF_A_FORWARDER = "dispatch partition"

SUBSCRIBERS = (
    *(Subscriber(name=f"sick-{behaviour}", behaviour=behaviour) for behaviour in SICK),
    *(Subscriber(name=f"ordered-{number}", is_ordered=True) for number in range(3)),
    *(Subscriber(name=f"rotating-{number}", is_rotating=True) for number in range(2)),
    *(Subscriber(name=f"plain-{number}") for number in range(9)),
)

JOBS = 40
OF_JOBS = (
    Subscriber(name="ordered", is_ordered=True),
    Subscriber(name="ends", kinds=frozenset({"success", "failed"})),
    Subscriber(name="acme", labels={"tenant": "acme"}),
    Subscriber(name="inline", is_inline=True, kinds=frozenset({"success", "failed"}), labels={"wants": "inline"}),
    Subscriber(name="sick", behaviour="fails"),
)

pytestmark = pytest.mark.apache


@pytest.mark.timeout(0)  # as many kills as are wanted; every wait in here has a time-out of its own
def test_every_event_arrives_signed_and_is_on_record_however_often_a_forwarder_is_killed(
    quick_broker: QuickBroker, tmp_path: Path
) -> None:
    """Killed at random moments, with six sick receivers among twenty: at work, while it restores, while it starts."""
    sys.stdout.write(f"{quick_broker.runs} kills, BRIDGE_CRASH_SEED={SEED}\n")
    chance, runs = Random(SEED), quick_broker.runs
    with running_webhooks(quick_broker, SUBSCRIBERS, tmp_path / "receipts.jsonl") as webhooks:
        for number in range(runs):
            _live_and_die(webhooks, EVENTS * (number + 1) // runs - EVENTS * number // runs, chance)
        last = webhooks.forwarder()
        orders = webhooks.published()
        assert len(orders) == EVENTS * 20
        webhooks.until_delivered(orders, last, seconds=180)
        assert last.stop(seconds=15) == 0
        evidence = webhooks.evidence(orders)
        sys.stdout.write(
            f"{len(evidence.receipts)} receipts, {repeats(evidence)} repeats at healthy receivers, "
            f"{len(evidence.recorded)} attempts on record, {len(evidence.dead)} dead, {len(evidence.ledger)} pending\n"
        )
        assert judge_webhooks(evidence) == []
        assert evidence.dead, "no delivery died: nothing was shown of those that do"


@pytest.mark.timeout(0)  # as above
def test_an_event_has_one_order_for_each_who_wants_it_however_often_worker_and_forwarder_are_killed(
    quick_broker: QuickBroker, tmp_path: Path
) -> None:
    """Real jobs of every fate, a worker and a forwarder, of which either or both are killed."""
    chance, runs = Random(SEED), max(2, quick_broker.runs // 5)
    sys.stdout.write(f"{runs} rounds of kills, BRIDGE_CRASH_SEED={SEED}\n")
    with running_system(quick_broker, chance) as system, ExitStack() as stack:
        webhooks = WebhookSystem(stack, quick_broker, system.prefix, OF_JOBS, tmp_path / "receipts.jsonl")
        worker, forwarder = system.worker(), webhooks.forwarder()
        for number in range(runs):
            _request(system, webhooks, range(JOBS * number // runs, JOBS * (number + 1) // runs), chance)
            if chance.random() < 0.8:
                await_partitions(worker)
                await_partitions(forwarder, kind=OF_A_FORWARDER)
            forwarder.live_for(chance.uniform(0, 1.2))
            victims = chance.choice(("worker", "forwarder", "both"))
            if victims != "forwarder":
                worker.kill()
                worker = system.worker()
            if victims != "worker":
                forwarder.kill()
                forwarder = webhooks.forwarder()
        system.load.finish()
        system.follower().until_ended(system.load.accepted, seconds=60)
        assert worker.stop(seconds=15) == 0
        assert system.judged() == []
        events = webhooks.events()
        wanted = webhooks.wanted(events.values())
        webhooks.until_delivered(wanted, forwarder, seconds=60)
        assert forwarder.stop(seconds=15) == 0
        evidence = webhooks.evidence(wanted)
        sys.stdout.write(f"{len(events)} events, {len(wanted)} orders, {repeats(evidence)} repeats\n")
        assert judge_orders(wanted, events, webhooks.follower().orders) == []
        assert judge_webhooks(evidence) == []
        assert {name for name, _ in wanted} == {each.name for each in OF_JOBS}


def _request(system: System, webhooks: WebhookSystem, numbers: range, chance: Random) -> None:
    """Request jobs of any fate: every other one for a tenant, and half of the rest with a webhook of its own."""
    for number in numbers:
        name, fate = f"job-{number}", chance.choice(["", "", *SCRIPTS])
        fields: dict[str, object] = {}
        if number % 2:
            fields = {"labels": {"tenant": "acme"}}
        elif number % 4:
            fields = {"labels": {"wants": "inline"}, "webhook": {"url": webhooks.url("inline")}}
        script = {"queue_s": chance.uniform(0, 0.3), "run_s": chance.uniform(0, 0.6), **SCRIPTS.get(fate, {})}
        system.load.request(name, graph(name, **script), max_attempts=2, **fields)


def _live_and_die(webhooks: WebhookSystem, events: int, chance: Random) -> None:
    """Order some events before it works, some while it does, and kill it when a throw of the dice decides."""
    webhooks.publish(events // 2)
    forwarder = webhooks.forwarder()
    match chance.choice(["at work", "at work", "at work", "while restoring", "while starting"]):
        case "at work":
            await_partitions(forwarder, kind=OF_A_FORWARDER)
            webhooks.publish(events - events // 2)
            forwarder.live_for(chance.uniform(0, 1.5))
        case "while restoring":
            webhooks.publish(events - events // 2)
            forwarder.await_lines(lambda lines: bool(opened(lines, OF_A_FORWARDER)), seconds=30, what="open partition")
        case _:
            webhooks.publish(events - events // 2)
            forwarder.live_for(chance.uniform(0.5, 2.5))
    forwarder.kill()
