"""Snapshots of 50 MB stall the event loop for no more than 50 ms: made, sent, received, swapped in.

What one pass of the loop does is measured in CPU time of its thread, so that other
work on the machine counts for nothing; of three tries the best counts, for a cache
or a page may be cold. The disk's own time is spent in a thread and is not in it.
"""

import asyncio
import gc
import time

import msgspec
import pytest

from shoal.api.objects import Task
from shoal.api.specs import ContainerSpec, TaskSpec
from shoal.manager.store.changes import Command as Changes
from shoal.manager.store.changes import Create, Outcome, encode_command
from shoal.manager.store.memory import MemoryStore, records_of
from shoal.manager.store.raft import Member, RaftNode, RaftTiming
from shoal.manager.store.state import Draft, State
from tests.fakes.controlplane import cluster
from tests.integration.raft.trio import free_address, until

STATE_BYTES = 50 << 20
RECORD_BYTES = 430
MOST_S = 0.050
TRIES = 3
TIMING = RaftTiming(election_min_s=0.3, election_max_s=0.6, heartbeat_s=0.05, trailing_entries=0)


def large_state():
    """50 MB of tasks, each with an environment of its own."""
    draft = Draft(State())
    padding = "x" * 300
    for number in range(STATE_BYTES // RECORD_BYTES):
        spec = TaskSpec(container=ContainerSpec(image="web:1", env=(f"NUMBER={number}", f"PADDING={padding}")))
        task = Task(id=f"t{number:024d}", service_id="s1", service_name="web", slot=number, spec=spec)
        draft.put("task", task.id, task)
    return draft.finish(0, 0, "", Outcome(index=0))


class Passes:
    """The longest CPU time of one pass of the event loop, while entered."""

    longest_s = 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self):
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s, last = max(self.longest_s, now - last), now


@pytest.fixture(scope="module")
def state():
    made = large_state()
    encoded = msgspec.msgpack.encode(records_of(made))
    assert len(encoded) >= STATE_BYTES, len(encoded)
    return made


async def stall(state, folder):
    """Found a member with this state, let it write a snapshot, and let another one join from it."""
    one, two = Member("n1.a", free_address()), Member("n2.a", free_address())
    memories = [MemoryStore(), MemoryStore()]
    memories[0].install(state)
    leader = RaftNode(me=one, members=[one], machine=memories[0], directory=folder / "1", tls=None, timing=TIMING)
    joiner = RaftNode(me=two, members=[one], machine=memories[1], directory=folder / "2", tls=None, timing=TIMING)
    await leader.start()
    await until(lambda: leader.is_ready)
    await leader.propose(encode_command(Changes(request_id="r1", changes=(Create(record=cluster()),), at=0.0)))
    gc.collect()
    gc.freeze()  # as the manager does after its start
    try:
        async with Passes() as passes:
            leader.compact()
            await until(lambda: leader.stats()["snapshot_index"] > 0, 60)
            made_s, passes.longest_s = passes.longest_s, 0.0
            await leader.propose(encode_command(Changes(request_id="r2", changes=(), at=0.0)))
            await joiner.start()
            await leader.add_member(two)
            await until(lambda: len(memories[1].view().tasks) == len(state.tasks), 60)
            await until(lambda: joiner.applied_index == leader.applied_index)
            taken_s = passes.longest_s
        assert joiner.stats()["snapshot_index"] > 0, "it took over a snapshot"
        assert set(memories[1].view().clusters) == {"c1"}
    finally:
        await joiner.stop()
        await leader.stop()
        gc.unfreeze()
    return made_s, taken_s


@pytest.mark.timeout(240)
async def test_a_snapshot_of_50_mb_stalls_the_loop_for_no_more_than_50_ms(state, tmp_path):
    made, taken = [], []
    for number in range(TRIES):
        made_s, taken_s = await stall(state, tmp_path / str(number))
        made.append(made_s)
        taken.append(taken_s)
        if min(made) <= MOST_S and min(taken) <= MOST_S:
            break
    print(f"longest pass while one was made {min(made) * 1000:.0f} ms, taken over {min(taken) * 1000:.0f} ms")
    assert min(made) <= MOST_S
    assert min(taken) <= MOST_S
