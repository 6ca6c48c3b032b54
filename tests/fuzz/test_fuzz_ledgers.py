"""A jobs ledger, spoilt, cut, or of other releases, is read, or refused as a whole with the reason.

What is read can be worked on: an owner that restores it goes on without an error, and writes down what follows.
"""

from collections.abc import Sequence
from datetime import timedelta
from random import Random

import msgspec

from bridge.adapters.kafka.ledger import Replay
from bridge.core.partition import Cancel, Partition, Post, Rest, Submit, Track
from bridge.core.registry import Registry
from bridge.errors import LedgerUnavailable
from bridge.messages import JobRecord
from tests.core import webhook_examples
from tests.core.examples import NOW, POLICY, in_every_phase, seen, stopped, tracking
from tests.fuzz.campaign import check_words, fuzz
from tests.fuzz.job_world import JobsLedger
from tests.fuzz.mutations import Log, documents, make_log, spoilt_document

# ---------------------------------------------------------------------------------------------------- the jobs ledger
WEBHOOK = {"url": "https://acme.example/hook", "events": ["success", "*"]}
JOBS = documents(*in_every_phase().values(), *map(stopped, in_every_phase().values()), tracking(webhook=WEBHOOK))
JOB_KEYS = (b"order-1", b"order-1", b"order-2", b"order-1\x1fparams", b"\x1fposition", b"order-3\x1fnew", b"", b"\xff")
POSITIONS = (b"7", b"-1", b"1e3", b"", b" 8 ", b"9" * 5_000, b"\xd9\xa3", b"null")


def make_jobs(chance: Random) -> Log:
    """A ledger of jobs; some are spoilt, some lack their graph, and now and then there is something else."""
    log: list[tuple[bytes, bytes | None]] = []
    for name in chance.sample(("order-1", "order-2", "ö 💥"), chance.randint(1, 3)):
        job = {**chance.choice(JOBS), "request_id": name}
        spoilt = chance.random() < 0.35
        log.append((name.encode(), spoilt_document(chance, [job]) if spoilt else msgspec.json.encode(job)))
        if chance.random() < 0.95:
            log.append((name.encode() + b"\x1fparams", b'{"3":{"classType":"KSampler"}}'))
    if chance.random() < 0.3:
        log.append((b"\x1fposition", b"7" if chance.random() < 0.9 else chance.choice(POSITIONS)))
    return [*log, *make_log(chance, JOB_KEYS, JOBS, POSITIONS)] if chance.random() < 0.1 else log


def check_jobs(log: Log) -> None:
    replay = Replay()
    try:
        for key, value in log:
            replay.add(key, value)
        records, params = replay.decoded()
    except LedgerUnavailable as error:
        check_words(error, most=3_000)
        return
    _check_sound(records)
    partition = Partition(topic="tams.requests", number=4, policy=POLICY, max_request_bytes=4_000)
    partition.restore(records, params, replay.position or 0, NOW)
    ledger, registry = JobsLedger(), webhook_examples.registry_of(webhook_examples.endpoint())
    for days in (0, 0, 1, 400):
        _go_on(partition, ledger, registry)
        partition.time_passed(NOW + timedelta(days=days))
    assert all(record.phase.is_terminal or record.deadline is None for record in _left(partition, records))


def _check_sound(records: Sequence[JobRecord]) -> None:
    for record in records:
        for moment in (record.accepted_at, record.lease_until, record.deadline, record.not_before, record.expires_at):
            assert moment is None or moment.tzinfo is not None
            assert moment is None or 1970 <= moment.year < 9990, "hours and days are added to it"
        again = msgspec.json.decode(msgspec.json.encode(record), type=JobRecord)
        assert msgspec.json.encode(again) == msgspec.json.encode(record)


def _go_on(partition: Partition, ledger: JobsLedger, registry: Registry) -> None:
    """Do whatever the partition wants done, and let it end well."""
    for action in ledger.commit(partition, registry):
        match action:
            case Submit(request_id):
                partition.grant(request_id, NOW)
            case Post(request_id=request_id, attempt=attempt):
                partition.submitted(request_id, attempt, seen("CREATED"), NOW, 0.5)
            case Track(job_id, record):
                partition.looked(record.request_id, job_id, seen("SUCCESS"), NOW, 0.5)
            case Cancel(request_id, job_id):
                partition.cancel_answered(request_id, job_id, seen("CANCELED"))
            case Rest():
                pass


def _left(partition: Partition, records: Sequence[JobRecord]) -> list[JobRecord]:
    found = (partition.record(record.request_id) for record in records)
    return [record for record in found if record is not None]


def test_a_jobs_ledger_is_restored_or_refused() -> None:
    fuzz("jobs ledger", make_jobs, check_jobs, size=len)
