"""One manager's core as a process of its own: Raft over TLS, the store, and in office the real deciders.

`python -m tests.integration.raft.member FOLDER NUMBER ADDRESS ADDRESS ADDRESS`

Reads one command a line and answers each with a line of JSON: `status`, `prepare`
(records of a cluster, NODES nodes and a service without tasks), `scale REPLICAS`,
`compact`, `count` (tasks that have a node).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.states import TaskState
from shoal.manager.collector import Collector
from shoal.manager.controlloop import drive
from shoal.manager.deciders import deciders
from shoal.manager.office import Office
from shoal.manager.store.changes import AnyChange, Command, Create, Update
from shoal.manager.store.memory import MemoryStore
from shoal.manager.store.raft import Member, RaftNode
from shoal.manager.store.replicated import OfficeStore, ReplicatedStore
from tests.fakes.controlplane import cluster, node, service
from tests.integration.raft.trio import raft_tls

NODES = 1000
TICK_S = 0.01


class Process:
    def __init__(self, folder: Path, number: int, addresses: list[str]) -> None:
        members = [Member(f"n{at}.a", address) for at, address in enumerate(addresses, 1)]
        self.memory = MemoryStore()
        self.raft = RaftNode(me=members[number - 1], members=members, machine=self.memory, directory=folder / "raft",
                             tls=raft_tls(folder))
        self.store = ReplicatedStore(self.raft, self.memory)
        self.longest_gap_s = self.longest_collection_s = self._collecting_since = 0.0
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        else:
            self.longest_collection_s = max(self.longest_collection_s, time.monotonic() - self._collecting_since)

    async def run(self) -> None:
        await self.raft.start()
        Collector().install()  # as the manager does
        async with asyncio.TaskGroup() as group:
            rest = [group.create_task(Office(self.raft, self.store, self._loops).serve()),
                    group.create_task(self._watch_the_loop())]
            await self._obey()
            for task in rest:
                task.cancel()
        await self.raft.stop()

    def _loops(self, store: OfficeStore) -> list[Any]:
        return [drive(store, decider, time.monotonic) for decider in deciders(lambda: uuid.uuid4().hex)]

    async def _watch_the_loop(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self.longest_gap_s, last = max(self.longest_gap_s, now - last - TICK_S), now

    async def _obey(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).split():
            match line:
                case [b"prepare"]:
                    await self._commit(Create(record=cluster()), Create(record=service(replicas=0)),
                                       *(Create(record=node(f"n{n:04d}")) for n in range(NODES)))
                case [b"scale", replicas]:
                    await self._scale(int(replicas))
                case [b"compact"]:
                    self.raft.compact()
                case [b"count"]:  # looks at every task: for the end
                    print(json.dumps({"assigned": self.assigned()}), flush=True)
                    continue
            print(json.dumps(self.status()), flush=True)

    async def _commit(self, *changes: AnyChange) -> None:
        outcome = await self.store.submit(Command(request_id=uuid.uuid4().hex, changes=changes, at=time.time()))
        assert not outcome.refusals, outcome.refusals

    async def _scale(self, replicas: int) -> None:
        stored = self.store.view().services["s1"]
        mode = msgspec.structs.replace(stored.spec.mode, replicas=replicas)
        spec = msgspec.structs.replace(stored.spec, mode=mode)
        await self._commit(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))

    def status(self) -> dict[str, Any]:
        tasks, stats = self.store.view().tasks, self.raft.stats()
        return {"term": self.raft.term, "leads": self.raft.is_ready, "tasks": len(tasks),
                "snapshot": stats["snapshot_index"], "last": stats["last_index"],
                "gap_s": round(self.longest_gap_s, 3), "turn_s": round(self.raft.longest_turn_s, 3),
                "collection_s": round(self.longest_collection_s, 3)}

    def assigned(self) -> int:
        return sum(task.status.state == TaskState.ASSIGNED for task in self.store.view().tasks.values())


if __name__ == "__main__":
    asyncio.run(Process(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).run())
