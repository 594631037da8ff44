"""A leader's loops: all or none, stopped with the office, started again a bounded number of times."""

import asyncio

import pytest

from shoal.api.errors import NoLeader, ShoalError
from shoal.manager.office import MAX_FAILURES, Office
from shoal.manager.store.changes import Command, Create, TakeOffice, decode_command
from shoal.manager.store.memory import MemoryStore
from shoal.manager.store.raft import MAX_COMMAND_BYTES, Member, NotLeader, OutcomeUnknown
from shoal.manager.store.replicated import ReplicatedStore
from tests.unit.manager.controlapi_store import node


class FakeRaft:
    """Leads when it is told to, and applies at once. `fates` come before: an error, or "lost" after applying."""

    def __init__(self):
        self.memory = MemoryStore()
        self.term, self.is_leader, self.members = 1, True, (Member("m1.j", "192.0.2.1:2378"),)
        self.commands, self.fates, self.handed_over = [], [], 0
        self._changed = asyncio.Event()

    @property
    def is_ready(self):
        return self.is_leader

    def lead(self, term):
        self.term, self.is_leader = term or self.term, bool(term)
        self._changed.set()

    async def wait_for(self, condition):
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def propose(self, command):
        await asyncio.sleep(0)
        if not self.is_leader:
            raise NotLeader(None)
        fate = self.fates.pop(0) if self.fates else None
        if isinstance(fate, Exception):
            raise fate
        self.commands.append(decode_command(command))
        outcome = self.memory.apply(len(self.commands), command)
        if fate == "lost":
            raise OutcomeUnknown("lost")
        return outcome

    async def transfer_leadership(self, to=None):
        self.handed_over += 1
        self.lead(0)


@pytest.fixture
def raft():
    return FakeRaft()


def store_of(raft):
    return ReplicatedStore(raft, raft.memory)


def command(*changes, **fields):
    return Command(request_id="r1", changes=changes, at=1.0, **fields)


# --- the store ---


async def test_a_command_whose_outcome_was_lost_is_sent_again_and_applied_once(raft):
    raft.fates = ["lost"]
    outcome = await store_of(raft).submit(command(Create(record=node("n1"))))
    assert (outcome.index, outcome.refusals, len(raft.commands)) == (1, (), 2)


async def test_out_of_office_a_lost_outcome_stays_unknown(raft):
    class Deposed(FakeRaft):
        async def propose(self, data):
            self.lead(0)
            raise OutcomeUnknown("lost")

    with pytest.raises(OutcomeUnknown):
        await store_of(Deposed()).submit(command(Create(record=node("n1"))))


async def test_not_leading_from_the_start_means_that_nothing_happened(raft):
    raft.lead(0)
    with pytest.raises(NoLeader):
        await store_of(raft).submit(command(Create(record=node("n1"))))


async def test_what_is_too_large_for_one_command_is_split(raft):
    nodes = [node(f"n{number}") for number in range(60)]
    nodes = [each.__class__(**{**_fields(each), "spec": _large_spec(40_000)}) for each in nodes]
    refused = await store_of(raft).in_office(1).propose([Create(record=each) for each in nodes])
    assert refused == []
    assert len(raft.memory.view().nodes) == 60
    assert 3 <= len(raft.commands) <= 8
    assert all(each.term == 1 for each in raft.commands)


async def test_one_change_that_is_too_large_is_left_out_and_the_rest_goes_on(raft):
    large = node("n1")
    large = large.__class__(**{**_fields(large), "spec": _large_spec(MAX_COMMAND_BYTES)})
    await store_of(raft).in_office(1).propose([Create(record=large), Create(record=node("n2"))])
    assert set(raft.memory.view().nodes) == {"n2"}


async def test_refusals_come_back_with_their_changes(raft):
    store = store_of(raft).in_office(1)
    await store.propose([Create(record=node("n1"))])
    again, other = Create(record=node("n1")), Create(record=node("n2"))
    ((change, refusal),) = await store.propose([again, other])
    assert (change, refusal.kind) == (again, "exists")


async def test_a_deposed_leaders_proposal_is_no_leader(raft):
    raft.memory.apply(1, _encoded(command(TakeOffice(term=5), term=5)))
    with pytest.raises(NoLeader):
        await store_of(raft).in_office(1).propose([Create(record=node("n1"))])
    raft.lead(7)
    with pytest.raises(NoLeader):
        await store_of(raft).in_office(1).propose([Create(record=node("n1"))])
    assert not raft.memory.view().nodes


def _fields(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _large_spec(size):
    from shoal.api.specs import NodeSpec

    return NodeSpec(labels={"large": "x" * size})


def _encoded(one):
    from shoal.manager.store.changes import encode_command

    return encode_command(one)


# --- the office ---


async def serving(raft, loops):
    return asyncio.create_task(Office(raft, store_of(raft), loops, pause_s=0.0).serve())


async def end(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_loops_begin_when_earlier_terms_are_void_and_end_with_the_office(raft):
    began, ended = asyncio.Event(), asyncio.Event()

    async def loop(store):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = await serving(raft, lambda store: [loop(store)])
    async with asyncio.timeout(5):
        await began.wait()
        assert raft.memory.view().term == 1
        raft.lead(0)
        await ended.wait()
        began.clear()
        raft.lead(2)
        await began.wait()
    assert raft.memory.view().term == 2
    await end(task)


async def test_one_loop_failing_stops_all_and_all_begin_again(raft):
    rounds, stopped, again = [], [], asyncio.Event()

    async def steady(number):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(number)

    async def failing(number):
        if number == 2:
            again.set()
            await asyncio.Event().wait()
        raise ValueError("broken")

    def loops(store):
        rounds.append(store)
        return [steady(len(rounds)), failing(len(rounds))]

    task = await serving(raft, loops)
    async with asyncio.timeout(5):
        await again.wait()
    assert stopped == [1]
    await end(task)


async def test_a_manager_whose_loop_fails_has_another_take_over(raft):
    raft.members = (*raft.members, Member("m2.j", "192.0.2.2:2378"))

    async def failing():
        raise ValueError("broken")

    task = await serving(raft, lambda store: [failing()])
    async with asyncio.timeout(5):
        await raft.wait_for(lambda: not raft.is_leader)
    assert raft.handed_over == 1
    await end(task)


async def test_loops_that_fail_again_and_again_end_the_process(raft):
    rounds = []

    async def failing():
        rounds.append(1)
        raise ValueError("broken")

    task = await serving(raft, lambda store: [failing()])
    async with asyncio.timeout(5):
        with pytest.raises(ShoalError, match="failed 6 times in 60 s, the last time with: broken"):
            await task
    assert len(rounds) == MAX_FAILURES + 1


async def test_losing_the_office_is_no_failure(raft):
    terms = []

    async def loop(store):
        terms.append(store.term)
        raft.lead(0)
        await store.propose([Create(record=node("n1"))])  # raises NoLeader

    task = await serving(raft, lambda store: [loop(store)])
    async with asyncio.timeout(5):
        for term in range(2, 20):
            await raft.wait_for(lambda: not raft.is_leader)
            await asyncio.sleep(0)
            raft.lead(term)
    assert not task.done()
    await end(task)


