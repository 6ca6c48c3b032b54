"""The jobs of a partition against chance: owners that die or are fenced, failing commits, a TAMS that is slow to tell.

The model is the requests topic, a ledger of bytes, and a TAMS that knows what it was asked to do. From these alone it
knows what must have become of every request, and what must be waited for, looked at or canceled next.
"""

from dataclasses import replace as with_policy
from datetime import datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from bridge.core import jobs
from bridge.core.partition import Submit
from bridge.errors import OwnershipLost
from bridge.messages import (
    Ambiguous,
    Answer,
    Done,
    Failure,
    InHand,
    JobRecord,
    Missing,
    NotSent,
    Phase,
    Refused,
    TryLater,
    Unauthorized,
)
from tests.core.examples import FAILURE, NO, NOW, POLICY, SECOND
from tests.core.job_judge import WHAT, Judge, Requests
from tests.core.job_world import LOST, Ledger, Owner, Tams, Underway
from tests.models import MODEL_TIMEOUT_S, model_settings

pytestmark = pytest.mark.timeout(MODEL_TIMEOUT_S)

MODEL_POLICY = with_policy(
    POLICY,
    max_attempts=2,
    deadline_grace=30 * SECOND,
    missing_grace=10 * SECOND,
    dedupe_window=timedelta(seconds=200),
)
REPEATED = Failure(code="already_exists", message="the requestId was used before", http_status=409)
LONGEST_WAIT = 61 * SECOND
"""Of a job that could be submitted at once but for what has happened to it."""

PICK = st.integers(0, 50)
NO_USE = {Phase.TRACKING, *jobs.ENDS}
"""Phases in which a job has no use for a turn."""


REPLIES = [
    "arrives", "arrives", "created", "created", "lost", "lost", "in hand", "repeated", "repeated", "refused", "refused",
    "later", "unauthorized", "unsent",
]  # fmt: skip
DOUBTS = ["lost", "in hand", "dies", "dies"]
SECONDS = ["repeated", "repeated", "unsent", "later", "refused", "created"]
MOVES = [
    "WAITING", "WAITING", "RUNNING", "RUNNING", "RUNNING", "SUCCESS", "SUCCESS", "SUCCESS", "TRANSITORY_ERROR",
    "TRANSITORY_ERROR", "FATAL_ERROR", "CANCELED", "PAUSED", "forgotten",
]  # fmt: skip
LOOKS = ["begins", "begins", "begins", "ends", "ends", "ends", "ends", "is lost", "misses"]
THEN = st.sampled_from(["lands"] * 12 + ["waits"] * 4 + ["lands, then nothing", "fails", "lands, in doubt"])
TO_CANCELS: list[Answer] = [Done(), Done(), Refused(NO), Ambiguous(LOST), TryLater(FAILURE, None, throttled=True)]


class JobsOfAPartition(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.requests = Requests()
        self.now: datetime = NOW
        self.ledger = Ledger()
        self.tams = Tams(self.ledger)
        self.zombies: list[Owner] = []

    @initialize(
        ambiguous=st.sampled_from(["repeat", "repeat", "repeat", "fail"]),
        deadline=st.sampled_from([None, None, None, 40]),
    )
    def begin(self, ambiguous: str, deadline: int | None) -> None:
        self.policy = with_policy(MODEL_POLICY, ambiguous=ambiguous, deadline=deadline and deadline * SECOND)  # type: ignore[arg-type]  # one of the two words
        self.judge = Judge(self.ledger, self.tams, self.requests, self.policy)
        self.open()

    def open(self) -> None:
        """Take the partition over: what was written is all that is known, and is known as it was."""
        before = dict(self.ledger.jobs)
        self.owner = Owner(self.ledger, self.tams, self.policy, self.now)
        partition = self.owner.partition
        assert (partition.position, len(partition)) == (self.ledger.position, len(before))
        for request_id, record in before.items():
            found = partition.record(request_id)
            assert found is not None
            if record.phase is not Phase.SUBMITTING or record.lease_until is None:
                assert found == record
            elif self.policy.ambiguous == "repeat":
                assert found.not_before == record.lease_until + self.policy.answer_timeout
            else:
                assert found.phase is Phase.UNKNOWN
        self.read_at = self.ledger.position

    # ---------------------------------------------------------------------------------------------- the requests topic

    @rule(
        what=WHAT,
        read=st.sampled_from([0, 1, 9, 9]),
        again=st.integers(0, 2),
        at_once=st.booleans(),
        then=THEN,
    )
    def requests_come(
        self, what: list[tuple[str, str, dict[str, object]]], read: int, again: int, then: str, *, at_once: bool
    ) -> None:
        self.requests.come(what, deadline=self.policy.deadline)
        self.requests_are_read(read, again, at_once=at_once)
        self.owner_goes_on(then)

    def requests_are_read(self, count: int, again: int, *, at_once: bool) -> None:
        """Some of them for the second time: a feed may begin too early."""
        self.owner.act(self.now)
        for arrival in self.requests.log[max(0, self.read_at - again) : self.read_at + count]:
            accepted = self.owner.partition.arrive(arrival, self.now)
            assert accepted is None or arrival.offset >= self.read_at
            if accepted is not None and at_once:
                assert self.owner.partition.grant(accepted, self.now)
        self.read_at = min(self.read_at + count, len(self.requests.log))
        assert self.owner.partition.position == self.read_at

    # --------------------------------------------------------------------------------------------------------- submits

    @precondition(lambda self: self.owner.partition.live())
    @rule(most=st.sampled_from([1, 2, 9, 9]), unasked=PICK, then=THEN)
    def turns_are_given(self, most: int, unasked: int, then: str) -> None:
        """To those who wait for one; and to one that has a POST under way, is at TAMS, or has ended."""
        self.owner.act(self.now)
        records, waiting = self.owner.partition._records, self.owner.waiting
        ready = [key for key, each in waiting.items() if each.not_before is None or each.not_before <= self.now]
        for request_id in ready[:most]:
            del waiting[request_id]
            self.owner.partition.grant(request_id, self.now)
        useless = sorted(key for key, each in records.items() if each.lease_until or each.phase in NO_USE)
        for request_id in useless[unasked : unasked + 1]:
            assert not self.owner.partition.grant(request_id, self.now)
        self.owner_goes_on(then)

    @precondition(lambda self: self.tams.on_the_way)
    @rule(ends=st.lists(st.tuples(PICK, st.sampled_from(REPLIES)), min_size=1, max_size=4), then=THEN)
    def posts_go_on(self, ends: list[tuple[int, str]], then: str) -> None:
        """Those of owners that are no more may reach TAMS, too; nobody hears what it says."""
        self.owner.act(self.now)
        for pick, reply in ends:
            if reply == "arrives":
                self.reach(self.tams.on_the_way[pick % len(self.tams.on_the_way)])
            elif self.owner.posts:
                self.answer_post(self.owner.posts[pick % len(self.owner.posts)], reply)
            if not self.tams.on_the_way:
                break
        self.owner_goes_on(then)

    @precondition(lambda self: self.owner.partition.live())
    @rule(
        look=st.sampled_from([True, True, False]),
        late=st.sampled_from(["", "before", "after"]),
        fates=st.lists(st.tuples(PICK, st.sampled_from(MOVES)), max_size=3),
    )
    def all_is_well(self, fates: list[tuple[int, str]], late: str, *, look: bool) -> None:
        """For a moment, except that looks may take as long as it takes to submit the next attempt, or to look again."""
        self.time_passes(2, "lands")
        self.turns_are_given(9, 0, "lands")
        self.all_posts_are_answered("created")
        before = list(self.owner.looks)
        if late == "before":
            self.looks_end(before)
        if self.tams.jobs:
            self.jobs_go_on_at_tams(fates)
        for request_id, job_id in self.owner.tracked.items() if look else ():
            self.owner.looks.append((request_id, job_id, self.tams.look(job_id)))
            self.owner.partition.looked(*self.owner.looks[-1], self.now, 0.5)
        if late == "after":
            self.looks_end(before)
        self.owner_goes_on("lands")

    def looks_end(self, looks: list[tuple[str, str, Answer]]) -> None:
        for each in looks:
            self.owner.looks.remove(each)
            self.owner.partition.looked(*each, self.now, 0.5)

    @precondition(lambda self: self.owner.partition.live())
    @rule(first=st.sampled_from(DOUBTS), second=st.sampled_from(SECONDS), is_done=st.booleans(), cancels=st.booleans())
    def submits_are_repeated(self, first: str, second: str, *, is_done: bool, cancels: bool) -> None:
        """Nobody knows whether the first has done its work; perhaps nobody wants it then."""
        self.turns_are_given(9, 0, "lands")
        posted = [begun.post.request_id for begun in self.owner.posts]
        for begun in self.owner.posts if is_done else ():
            self.reach(begun)
        self.all_posts_are_answered(first)
        self.time_passes(21, "lands")
        self.turns_are_given(9, 0, "lands")
        self.all_posts_are_answered(second)
        for request_id in posted if cancels else ():
            self.requests.ask_for_a_cancel(request_id)
        self.requests_are_read(99, 0, at_once=False)
        self.owner_goes_on("lands")

    def all_posts_are_answered(self, reply: str) -> None:
        """Or nobody is there to hear."""
        if reply == "dies":
            self.open()
        for begun in list(self.owner.posts):
            self.answer_post(begun, reply)
        self.owner_goes_on("lands")

    def reach(self, begun: Underway) -> None:
        if begun.reached is None and self.owner.is_within_time(begun, self.now):
            begun.reached = self.tams.create(begun.post.tams_request_id)

    def answer_post(self, begun: Underway, reply: str) -> None:
        """What TAMS, or the network, says; nothing that its having done the thing would make a lie."""
        self.owner.posts.remove(begun)
        if reply == "created":
            self.reach(begun)
        self.tams.on_the_way.remove(begun)
        post, answers = begun.post, self.replies()
        is_known = post.tams_request_id in self.tams.ids
        if reply == "created" and begun.reached is not None:
            answer: Answer = begun.reached
        elif reply == "repeated" and is_known and begun.reached is None:
            answer = Refused(REPEATED)
        elif begun.reached is not None or (is_known and reply == "refused") or reply not in answers:
            answer = InHand() if reply == "in hand" else Ambiguous(LOST)
        else:
            answer = answers[reply]
        self.owner.partition.submitted(post.request_id, post.attempt, answer, self.now, 0.5)

    def replies(self) -> dict[str, Answer]:
        """Those of a TAMS that has done nothing."""
        return {
            "in hand": InHand(),
            "refused": Refused(NO),
            "later": TryLater(FAILURE, 3 * SECOND, throttled=False),
            "unauthorized": Unauthorized(FAILURE),
            "unsent": NotSent(FAILURE),
        }

    # ------------------------------------------------------------------------------------------------- looks, cancels

    @precondition(lambda self: self.tams.jobs)
    @rule(moves=st.lists(st.tuples(PICK, st.sampled_from(MOVES)), min_size=1, max_size=5))
    def jobs_go_on_at_tams(self, moves: list[tuple[int, str]]) -> None:
        for pick, status in moves:
            job_id = sorted(self.tams.jobs)[-(pick % len(self.tams.jobs)) - 1]
            if status.endswith("ERROR"):
                self.tams.move(job_id, "FAILED", failedInfo={"code": status, "reason": "no luck"})
            elif status == "RUNNING":
                self.tams.move(job_id, status, runningInfo={"workflowFinishItem": {"progress": pick / 50}})
            elif status == "WAITING":
                self.tams.queue(job_id, pick)
            elif status == "forgotten":
                self.tams.forgotten |= {job_id} if pick > 40 else set()
            else:
                self.tams.move(job_id, status)

    @precondition(lambda self: self.owner.tracked or self.owner.todo)
    @rule(looks=st.lists(st.tuples(PICK, st.sampled_from(LOOKS)), min_size=1, max_size=5), then=THEN)
    def looks_go_on(self, looks: list[tuple[int, str]], then: str) -> None:
        """They end in whatever order, and however much has happened since they began."""
        self.owner.act(self.now)
        for pick, what in looks:
            if what == "begins":
                self.look_begins(pick)
            elif what == "misses":
                self.look_misses_a_job_that_is_there(pick)
            elif self.owner.looks:
                request_id, job_id, found = self.owner.looks.pop(pick % len(self.owner.looks))
                answer = found if what == "ends" else Ambiguous(LOST)
                self.owner.partition.looked(request_id, job_id, answer, self.now, 0.5)
        self.owner_goes_on(then)

    def look_begins(self, pick: int) -> None:
        tracked = sorted(self.owner.tracked.items())
        for request_id, job_id in tracked[pick % len(tracked) :][:1] if tracked else []:
            self.owner.looks.append((request_id, job_id, self.tams.look(job_id)))

    def look_misses_a_job_that_is_there(self, pick: int) -> None:
        """A part of TAMS may lag behind another; but not behind the answer to a cancel."""
        there = sorted((a, b) for a, b in self.owner.tracked.items() if b not in self.tams.answered_cancels)
        for request_id, job_id in there[pick % len(there) :][:1] if there else []:
            self.tams.missed.add(job_id)
            self.owner.partition.looked(request_id, job_id, Missing(NO), self.now, 0.5)

    @precondition(lambda self: self.owner.cancels or self.owner.todo)
    @rule(pick=PICK, answer=st.sampled_from(TO_CANCELS), arrives=st.booleans(), then=THEN)
    def cancel_is_sent(self, pick: int, answer: Answer, then: str, *, arrives: bool) -> None:
        self.owner.act(self.now)
        if self.owner.cancels:
            request_id, job_id = sorted(self.owner.cancels.items())[pick % len(self.owner.cancels)]
            self.cancel(request_id, job_id, answer, arrives=arrives)
        self.owner_goes_on(then)

    def cancel(self, request_id: str, job_id: str, answer: Answer, *, arrives: bool) -> None:
        """The user, or the deadline, wanted it, or it would not be sent."""
        record = self.ledger.jobs[request_id]
        assert (record.job_id, record.stop is not None) == (job_id, True)
        if isinstance(answer, Done) or (isinstance(answer, Ambiguous) and arrives):
            self.tams.cancel(job_id)
        if job_id in self.tams.forgotten:
            answer = Missing(NO)
        if isinstance(answer, Done | Missing | Refused):
            del self.owner.cancels[request_id]
            self.tams.answered_cancels.add(job_id)
        self.owner.partition.cancel_answered(request_id, job_id, answer)

    # ------------------------------------------------------------------------------------------- time, commits, crashes

    @rule(seconds=st.sampled_from([1, 1, 1, 4, 6, 11, 16, 21, 31, 201]), then=THEN)
    def time_passes(self, seconds: int, then: str) -> None:
        self.now += seconds * SECOND
        self.owner.act(self.now)
        self.posts_take_no_longer_than_they_may()
        self.owner_goes_on(then)

    def posts_take_no_longer_than_they_may(self) -> None:
        over = [each for each in self.tams.on_the_way if not self.owner.is_within_time(each, self.now)]
        for begun in over:
            if begun in self.owner.posts:
                self.answer_post(begun, "lost")
            else:
                self.tams.on_the_way.remove(begun)

    def owner_goes_on(self, outcome: str) -> None:
        """What has happened is written down, perhaps; what follows from it is done, perhaps."""
        if outcome == "waits":
            return
        self.owner.act(self.now)
        self.owner.partition.time_passed(self.now)
        if outcome == "fails":
            self.owner.partition.take()
            self.open()
            return
        self.commit()
        if outcome == "lands, in doubt":
            self.open()
        elif outcome == "lands":
            self.owner.act(self.now)
            self.every_job_is_where_its_record_says()

    def commit(self) -> None:
        begin = self.ledger.position
        self.owner.commit(then=lambda changes: self.judge.written(changes, begin, self.now))
        self.ledger_holds_what_the_owner_holds()
        self.deadlines_are_kept()

    @rule(what=st.sampled_from(["dies", "is fenced", "wakes", "wakes", "wakes"]), pick=PICK)
    def owner_changes(self, what: str, pick: int) -> None:
        """What was not written has not happened; what was on its way to TAMS may still get there."""
        if what == "wakes" and self.zombies:
            self.zombie_wakes(self.zombies.pop(pick % len(self.zombies)), cancels=pick % 2 == 0)
        elif what != "wakes":
            self.zombies += [self.owner] if what == "is fenced" else []
            self.open()

    def zombie_wakes(self, zombie: Owner, *, cancels: bool) -> None:
        """It does what its last commit allowed, as far as that still holds, and then finds out."""
        zombie.act(self.now)
        for job_id in zombie.cancels.values() if cancels else ():
            self.tams.cancel(job_id)
        for arrival in self.requests.log[zombie.partition.position :]:
            zombie.partition.arrive(arrival, self.now)
        zombie.partition.time_passed(self.now)
        before = self.ledger.as_bytes()
        if zombie.partition._changes:
            with pytest.raises(OwnershipLost):
                zombie.commit(then=lambda _: None)
        assert self.ledger.as_bytes() == before

    # ------------------------------------------------------------------------------------------- what each commit holds

    def ledger_holds_what_the_owner_holds(self) -> None:
        """Whatever has changed was written: who restores it now is where this owner is."""
        partition = self.owner.partition
        assert self.ledger.jobs == partition._records
        assert (self.ledger.params, self.ledger.position) == (partition._params, partition.position)
        live = {key for key, record in partition._records.items() if not record.phase.is_terminal}
        assert (set(partition._params), partition.live()) == (live, len(live))

    def deadlines_are_kept(self) -> None:
        """At every moment at which the owner looks."""
        timers = []
        for record in self.ledger.jobs.values():
            if record.phase.is_terminal:
                timers.append(record.expires_at)
            elif record.deadline is not None:
                is_over = record.deadline <= self.now
                assert (record.stop is not None) or not is_over
                timers.append(record.deadline + (self.policy.deadline_grace if record.stop else timedelta()))
        assert all(timer is not None and timer > self.now for timer in timers)
        first = self.owner.partition.next_timer()
        assert not timers or (first is not None and first <= min(timer for timer in timers if timer))

    def every_job_is_where_its_record_says(self) -> None:
        """Nobody is forgotten by those who submit and look, and nobody is bothered who has ended."""
        owner, records = self.owner, self.ledger.jobs
        held = {key: record for key, record in records.items() if record.phase is Phase.TRACKING}
        leases = {key: record.lease_until for key, record in records.items() if record.lease_until is not None}
        live = {key for key, record in records.items() if not record.phase.is_terminal}
        assert owner.tracked == {key: record.job_id for key, record in held.items()}
        assert owner.cancels == {
            key: record.job_id for key, record in held.items() if record.stop and not record.stop_told
        }
        posted = {
            begun.post.request_id: begun.post.lease_until for begun in owner.posts if begun.post.request_id in live
        }
        assert posted.items() <= leases.items()
        assert all(leases[key] <= self.now for key in leases.keys() - posted.keys())  # they begin anew at the next step
        assert owner.waiting.keys() == live - held.keys() - leases.keys()
        for request_id, submit in owner.waiting.items():
            self.waits_as_it_should(records[request_id], submit)

    def waits_as_it_should(self, record: JobRecord, submit: Submit) -> None:
        assert (submit.since, submit.priority) == (record.accepted_at, record.priority)
        assert submit.not_before is None or submit.not_before <= self.now + LONGEST_WAIT
        assert record.priority == self.requests.asked_for(record.seed).priority

    # ------------------------------------------------------------------------------------------------------ what holds

    @invariant()
    def every_life_is_told_once_and_in_order(self) -> None:
        self.judge.lives_are_sound()

    @override
    def teardown(self) -> None:
        """Once everything works, every accepted request comes to the end that TAMS gave it."""
        for _ in range(40):
            if self.everything_works_for_a_while():
                break
        assert self.owner.partition.live() == 0
        assert self.ledger.position == len(self.requests.log)
        self.judge.ends_are_true()

    def everything_works_for_a_while(self) -> bool:
        """Returns whether there is nothing left to do."""
        self.requests_are_read(len(self.requests.log), 0, at_once=False)
        self.owner_goes_on("lands")
        self.turns_are_given(99, 0, "lands")
        for begun in list(self.owner.posts):
            self.answer_post(begun, "created")
        self.owner_goes_on("lands")
        for request_id, job_id in list(self.owner.cancels.items()):
            self.cancel(request_id, job_id, Done(), arrives=True)
        for job_id in self.owner.tracked.values():
            self.tams.move(job_id, "SUCCESS")
        for request_id, job_id in self.owner.tracked.items():
            self.owner.partition.looked(request_id, job_id, self.tams.look(job_id), self.now, 0.5)
        self.owner_goes_on("lands")
        self.time_passes(6, "waits")
        return not self.owner.partition.live()


TestJobsOfAPartition = JobsOfAPartition.TestCase
TestJobsOfAPartition.settings = model_settings(examples=200, steps=50)
