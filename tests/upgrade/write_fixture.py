"""Write what a bridge leaves in Kafka when it stops in the middle of everything, as the release at hand writes it.

    python tests/upgrade/write_fixture.py RELEASE [--into tests/fixtures/ledgers]

Core and Kafka adapters are driven through jobs and deliveries of every state. What they would have sent to the brokers
goes to `RELEASE/records.jsonl`, and what the world outside knows to `RELEASE/world.json`. To write the fixture of
another release, put nothing but its package first: `git archive TAG bridge | tar x -C DIR`, and `PYTHONPATH=DIR`.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

from bridge.adapters.kafka.transactions import Record
from bridge.core.registry import endpoint_key, tenant_key
from bridge.messages import Ambiguous, Done, Failure, InHand, Missing, NotSent, Refused, TryLater
from bridge.webhook_messages import (
    Ordering,
    ReplayCancel,
    ReplayOrder,
    Scope,
    SignatureScheme,
    TenantSecrets,
)
from bridge.webhook_ports import NoResponse, Response

sys.path.append(str(Path(__file__).parents[2]))

from tests.upgrade.story import ENCRYPTION_KEY, FAILURE, STOPPED_AT, Story, seen

TRANSITORY = {"failedInfo": {"reason": "out of memory", "code": "TRANSITORY_ERROR"}}


def register(story: Story) -> None:
    """Endpoints, tenants' secrets and API keys of every kind."""
    story.endpoint("ep_plain", description="all ends", max_in_flight=100)
    story.endpoint(
        "ep_v1a", scheme=SignatureScheme.V1A, secrets=(story.sealed("ep_v1a", SignatureScheme.V1A),), max_in_flight=100
    )
    expiring = story.sealed("ep_rotated", then=STOPPED_AT + timedelta(days=1))
    story.secrets["ep_rotated, former"] = story.secrets.pop("ep_rotated")
    story.endpoint("ep_rotated", secrets=(story.sealed("ep_rotated"), expiring), rate=100.0, epoch=3)
    headers = story.vault.seal(json.dumps({"authorization": "Bearer made-up"}), owner="ep_headers")
    story.endpoint("ep_headers", sealed_headers=headers, header_names=("authorization",), timeout_s=5.0)
    story.endpoint("ep_tenant", tenant="acme", labels={"tenant": "acme"}, event_types=("tams.job.*",))
    story.endpoint(
        "ep_ordered", ordering=Ordering.JOB, drop_superseded=True, event_types=("*",), retry_schedule_s=(60.0,)
    )
    story.endpoint("ep_failing", retry_schedule_s=(30.0, 600.0))
    story.endpoint("ep_throttled")
    story.endpoint("ep_paused", paused=True)
    story.endpoint("ep_disabled", handshake=True, request_hash="0f")
    story.status("ep_disabled", warned=True, disabled_at=story.now, disabled_reason="failing")
    story.endpoint("ep_gone")
    story.status("ep_gone", disabled_at=story.now, disabled_reason="gone")
    story.endpoint("ep_deleted")
    story.keep(story.names.endpoints, endpoint_key("ep_deleted"), None)
    for tenant in ("", "acme"):
        secrets = TenantSecrets(tenant=tenant, secrets=(story.sealed(tenant),), changed=story.now)
        story.keep(story.names.endpoints, tenant_key(tenant), secrets)
    story.api_key("admin", Scope.ADMIN)
    story.api_key("acme", Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE, tenant="acme")
    story.keep(story.names.api_keys, story.api_key("revoked", Scope.ADMIN).encode(), None)


async def end_jobs(story: Story) -> None:
    """Jobs that have ended, in every way; the first so long ago that it is forgotten."""
    await story.job("forgotten")
    await story.request("unreadable", b'{"params": ')
    await story.cancel("forgotten")
    story.now = STOPPED_AT - timedelta(minutes=10)
    story.jobs.time_passed(story.now)
    await story.commit()
    for name, status in (("succeeded", "SUCCESS"), ("failed", "FAILED"), ("canceled", "CANCELED")):
        job_id = await story.track(name, labels={"tenant": "acme"}, webhook={"url": "https://inline.example/hook"})
        await story.look(name, job_id, seen(job_id, "RUNNING", runningInfo={"processingImages": [{"progress": 0.5}]}))
        await story.look(name, job_id, seen(job_id, status, failedInfo={"reason": "no", "code": "FATAL_ERROR"}))
    await story.job("rejected")
    await story.submit("rejected", is_done=False)
    await story.answer("rejected", Refused(Failure(code="invalid_samples", message="no", http_status=400)))
    await story.job("expired", deadline_s=1)
    story.now += timedelta(seconds=2)
    story.jobs.time_passed(story.now)
    job_id = await story.track("unknown")
    await story.look("unknown", job_id, Missing(FAILURE))
    story.now += timedelta(minutes=2)
    await story.look("unknown", job_id, Missing(FAILURE))
    del story.tams[next(key for key, (name, _) in story.tams.items() if name == "unknown")]
    await story.job("succeeded")  # once more, a duplicate


async def submit_jobs(story: Story) -> None:
    """Jobs that wait to be submitted, or whose submit is under way or in doubt."""
    story.now = STOPPED_AT - timedelta(seconds=30)
    trace = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    await story.request("accepted", {"params": {"1": {"classType": "KSampler"}}, "deadlineS": 3600}, trace)
    await story.job("accepted ünï", labels={"tenant": "acme"}, webhook={"url": "https://inline.example/hook"})
    await story.job("put back")
    await story.submit("put back", is_done=False)
    await story.answer("put back", TryLater(FAILURE, timedelta(seconds=40), throttled=True))
    await story.job("not sent")
    await story.submit("not sent", is_done=False)
    await story.answer("not sent", NotSent(FAILURE))
    job_id = await story.track("tried again")
    await story.look("tried again", job_id, seen(job_id, "FAILED", **TRANSITORY))
    await story.job("in hand")
    await story.submit("in hand")
    await story.answer("in hand", InHand())
    for name, is_done in (("ambiguous, done", True), ("ambiguous, not done", False)):
        await story.job(name)
        await story.submit(name, is_done=is_done)
        await story.answer(name, Ambiguous(FAILURE))
    await story.job("ambiguous, canceled")
    await story.submit("ambiguous, canceled")
    await story.answer("ambiguous, canceled", Ambiguous(FAILURE))
    await story.cancel("ambiguous, canceled")
    for name, is_done in (
        ("interrupted, done", True),
        ("interrupted, not done", False),
        ("interrupted, canceled", True),
    ):
        story.now = STOPPED_AT - timedelta(seconds=2)
        await story.job(name)
        await story.submit(name, is_done=is_done)
    await story.cancel("interrupted, canceled")


async def track_jobs(story: Story) -> None:
    """Jobs that TAMS holds."""
    story.now = STOPPED_AT - timedelta(seconds=20)
    await story.track("created")
    job_id = await story.track("waiting", labels={"tenant": "acme"})
    await story.look("waiting", job_id, seen(job_id, "WAITING", waitingInfo={"queueRank": "4", "queueLen": "9"}))
    job_id = await story.track("running", webhook={"url": "https://inline.example/hook", "events": ["*"]})
    nodes = {
        "workflowFinishItem": {"nodes": {"1": {}}, "finishedNodes": {"1": {}}},
        "processingImages": [{"progress": 0.4}],
    }
    await story.look("running", job_id, seen(job_id, "RUNNING", runningInfo=nodes))
    job_id = await story.track("of another status")
    await story.look("of another status", job_id, seen(job_id, "PAUSED"))
    job_id = await story.track("missing for now")
    await story.look("missing for now", job_id, Missing(FAILURE))
    await story.track("to be canceled")
    await story.cancel("to be canceled")
    job_id = await story.track("cancel told")
    await story.cancel("cancel told")
    story.jobs.cancel_answered("cancel told", job_id, Done())
    await story.track("past its deadline", deadline_s=10)
    job_id = await story.track("second attempt")
    await story.look("second attempt", job_id, seen(job_id, "FAILED", **TRANSITORY))
    story.now = STOPPED_AT - timedelta(seconds=5)
    again = await story.submit("second attempt")
    await story.answer("second attempt", seen(again, "CREATED"), attempt=2)
    story.jobs.time_passed(story.now)
    await story.commit()
    await story.request("not read yet", {"params": {"1": {"classType": "KSampler"}}}, read=False)


def ask_for_replays(story: Story) -> None:
    """Wishes for replays, and for the end of one."""
    since = STOPPED_AT - timedelta(days=1)
    for name in ("rp_asked", "rp_begun", "rp_done", "rp_canceled"):
        story.order(
            ReplayOrder(replay_id=name, endpoint_id="ep_plain", since=since, until=STOPPED_AT, created=story.now)
        )
    story.order(ReplayCancel(replay_id="rp_canceled", endpoint_id="ep_plain"))


async def deliver(story: Story) -> None:
    """Deliveries and replays of every state; the last orders are not read yet."""
    story.now = STOPPED_AT - timedelta(seconds=15)
    orders = sum(1 for record in story.log if record.topic == story.names.dispatch)
    unread = 9
    await story.read_orders(orders - unread)
    delivered, failed = (
        Response(status=204, headers={}, body=b""),
        Response(status=500, headers={}, body=b"out of order"),
    )
    await story.post_all(
        {
            "ep_plain": delivered,
            "ep_headers": NoResponse(error="no answer within 5 s"),
            "ep_failing": failed,
            "ep_throttled": Response(status=429, headers={"retry-after": "60"}, body=b""),
            "ep_tenant": NoResponse(error="10.0.0.1 is a private address", blocked=True),
            "ep_ordered": failed,
        }
    )
    await story.read_orders(unread - 4)


async def replay(story: Story) -> None:
    """How far the replays have come."""
    place = f"{story.names.results[1]}-0"
    values = [record.value for record in story.log if record.topic == story.names.results[1] and record.value]
    for replay_id, count in (("rp_begun", len(values) - 1), ("rp_done", len(values))):
        story.dispatch.replay_begun(replay_id, ({place: 0}, {place: len(values)}), story.moment)
        story.dispatch.replay_read(replay_id, values[:count], {place: count}, story.moment)
    await story.write_deliveries()


async def write(release: str, into: Path) -> None:
    """Tell the whole story and write it down."""
    story = Story()
    register(story)
    await end_jobs(story)
    await submit_jobs(story)
    ask_for_replays(story)
    await track_jobs(story)
    await deliver(story)
    await replay(story)
    directory = into / release
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "records.jsonl").open("w") as lines:
        lines.writelines(_line(record) for record in story.log)
    world = {
        "stopped_at": STOPPED_AT.isoformat(),
        "encryption_key": ENCRYPTION_KEY,
        "secrets": story.secrets,
        "api_keys": story.api_keys,
        "tams": [
            {"tams_request_id": key, "request_id": name, "job_id": job} for key, (name, job) in story.tams.items()
        ],
    }
    (directory / "world.json").write_text(json.dumps(world, indent=1, ensure_ascii=False) + "\n")
    counts = Counter(record.topic for record in story.log)
    sys.stdout.write(f"{directory}: {dict(counts)}\n")


def _line(record: Record) -> str:
    document = {
        "topic": record.topic,
        "partition": record.partition,
        "key": None if record.key is None else record.key.decode(),
        "value": None if record.value is None else record.value.decode(),
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="name of the directory, such as 0.1.0")
    parser.add_argument("--into", type=Path, default=Path(__file__).parents[1] / "fixtures" / "ledgers")
    options = parser.parse_args()
    asyncio.run(write(options.release, options.into))


if __name__ == "__main__":
    main()
