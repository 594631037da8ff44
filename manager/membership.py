"""Raft's members kept in step with what the store wants of the nodes.

Members are named `<node id>.<join>`; the store's `Node.manager` shows which join of a
node takes part. `steps` says what to do (pure); `Upkeep` does it, on the leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from shoal.api.errors import Conflict, NoLeader, Unavailable
from shoal.api.membership import at_port
from shoal.api.objects import ManagerInfo, Node
from shoal.api.states import Role
from shoal.manager.controlloop import Store
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import Update
from shoal.manager.store.memory import Resync, Watch
from shoal.manager.store.raft import Member, Members, RaftNode
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

RETRY_S = (0.1, 5.0)
"""First and longest wait after a step that failed."""


# --- names and addresses ---


def member_id(node_id: str, join: str) -> str:
    return f"{node_id}.{join}"


def node_of(member: str) -> str:
    return member.partition(".")[0]


def join_of(member: str) -> str:
    return member.partition(".")[2]


def raft_address(host: str, port: int) -> str:
    """Where Raft listens of the manager that serves there: at the port above."""
    return at_port(host, port + 1)


def manager_address(member: Member) -> str:
    """Where the manager serves whose Raft listens at the member's address."""
    host, _, port = member.address.rpartition(":")
    return f"{host}:{int(port) - 1}"


# --- deciding ---


class Remove(msgspec.Struct, frozen=True):
    """Take a member out of Raft."""

    member: str
    why: str


class HandOver(msgspec.Struct, frozen=True):
    """Leave the office: this leader is to be taken out."""


class Record(msgspec.Struct, frozen=True):
    """Show in a node's record which join of it takes part."""

    node: Node


Step = Remove | HandOver | Record


def steps(view: State, members: Members, me: str) -> list[Step]:
    """What is to be done, most urgent first. Repeated once it is done, it is nothing."""
    found: list[Step] = []
    for member in members:
        why = _unwanted(view.nodes.get(node_of(member.id)))
        if why and member.id != me:
            found.append(Remove(member.id, why))
        elif why and len(members) > 1:
            found.append(HandOver())
    taking_part = {node_of(member.id): member for member in members}
    for node in view.nodes.values():
        mine = taking_part.get(node.id)
        info = ManagerInfo(raft_id=join_of(mine.id), addr=manager_address(mine)) if mine is not None else None
        if node.manager != info:
            found.append(Record(msgspec.structs.replace(node, manager=info)))
    return found


def _unwanted(node: Node | None) -> str:
    """Why a node's member does not belong into Raft; empty where it does."""
    if node is None:
        return "its node was removed"
    return "" if node.spec.role is Role.MANAGER else "it was demoted"


# --- asking ---


class RaftMembership:
    """What the control API asks about the members (`controlapi.context.Membership`). True on the leader."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node

    def leader_node_id(self) -> str:
        return node_of(self._node.me.id if self._node.is_leader else self._node.leader_id or "")

    def manager_node_ids(self) -> Sequence[str]:
        return [node_of(member.id) for member in self._node.members]

    def reachable(self, node_id: str) -> bool:
        """Whether the leader has heard of it within an election timeout."""
        return any(
            member.id == self._node.me.id or self._node.silence_s(member.id) <= self._node.timing.election_max_s
            for member in self._node.members if node_of(member.id) == node_id
        )

    def leader_address(self) -> str:
        """Where the leader serves; "" while none is known."""
        leader = self._node.me.id if self._node.is_leader else self._node.leader_id
        found = next((member for member in self._node.members if member.id == leader), None)
        return manager_address(found) if found is not None else ""


# --- doing ---


class Upkeep:
    """The leader's loop. `wake` it when the members have changed."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self._watch: Watch | None = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        if self._watch is not None:
            self._watch.wake()

    async def run(self, store: Store) -> None:
        """Until cancelled, or until the office is over. Raises NoLeader then."""
        failures = 0
        with store.watch() as watch:
            self._watch = watch
            while True:
                self._woken = False
                failures = 0 if await self._step(store) else failures + 1
                if failures:
                    await asyncio.sleep(min(RETRY_S[0] * 2 ** min(failures - 1, 10), RETRY_S[1]))
                    continue
                while not self._woken and not _about_nodes(await watch.batch()):
                    pass

    async def _step(self, store: Store) -> bool:
        """Do what is to be done; whether all of it could be done."""
        node = self._node
        mine = next((member for member in node.members if member.id == node.me.id), None)
        try:
            if mine is not None and mine.address != node.me.address:
                await node.update_address(node.me)
                log.info("event=member-moved member=%s address=%s", node.me.id, node.me.address)
            while todo := steps(store.view(), node.members, node.me.id):
                await self._do(todo[0], store)
        except NoLeader:
            raise
        except (Conflict, Unavailable) as error:
            # another change is under way, nobody is able to take over, or it did not come in time: no reason to stop
            # the leader's other loops
            log.info("event=membership-waits why=%s", error)
            return False
        return True

    async def _do(self, step: Step, store: Store) -> None:
        match step:
            case Remove(member=member, why=why):
                await self._node.remove_member(member)
                log.info("event=member-removed member=%s why=%s", member, why)
            case HandOver():
                await self._node.transfer_leadership()
                log.info("event=leadership-handed-over why=demoted")
            case Record(node=node):
                for _, refusal in await store.propose([Update(record=node)]):
                    log.debug("event=refused why=%s", refusal.reason)  # it changed meanwhile: looked at again


def _about_nodes(events: Sequence[Event | Resync]) -> bool:
    return any(isinstance(event, Resync) or event.table == "node" for event in events)
