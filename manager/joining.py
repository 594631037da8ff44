"""A manager's own way into Raft and out of it, asked of the leader on its port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

import msgspec

from shoal.api.errors import NotFound, PermissionDenied, ShoalError, Unavailable
from shoal.api.membership import RaftMember
from shoal.manager.membership import RaftMembership, join_of, manager_address, node_of
from shoal.manager.peers import LedElsewhere, Peers, Refused
from shoal.manager.store.raft import Member, Members, RaftNode

log = logging.getLogger(__name__)

RETRY_S = (0.05, 1.0)
LEAVE_TIMEOUT_S = 9.0
TAKE_BACK_S = 3.0
MEMBERS = "/raft/v1/members"

_FINAL = frozenset({400, 403, 404})


class Joining:
    """`addresses`: where managers were last known (`host:port`)."""

    def __init__(self, peers: Peers, addresses: Sequence[str]) -> None:
        self._peers = peers
        self._addresses = list(addresses)

    async def members(self) -> Members:
        """Who takes part now. Waits for a leader. Raises PermissionDenied where this host may not ask, NotFound where
        no manager is known."""
        if not self._addresses:
            raise NotFound("no manager of the swarm is known to this host: leave the swarm and join it again")
        return await self._ask("GET", None)

    async def ask_to_be_added(self, me: Member) -> None:
        """Returns once the leader has added us. Raises PermissionDenied where it never will."""
        await self._ask("POST", RaftMember(raft_id=join_of(me.id), node_id=node_of(me.id), addr=me.address,
                                           manager_addr=manager_address(me)))

    async def _ask(self, method: str, body: RaftMember | None) -> Members:
        failures = 0
        while True:
            for address in self._known():
                try:
                    reply = await self._peers.call(address, method, MEMBERS, body, timeout_s=15.0)
                    return self._learn(msgspec.msgpack.decode(reply, type=list[RaftMember]))
                except LedElsewhere as error:
                    if error.address and error.address not in self._addresses:
                        self._addresses.insert(0, error.address)
                except Refused as error:
                    if error.answered in _FINAL:
                        raise PermissionDenied(error.message) from error
                    _report(failures, address, error)
                except (Unavailable, msgspec.MsgspecError) as error:
                    _report(failures, address, error)
            failures += 1
            await asyncio.sleep(min(RETRY_S[0] * 2 ** min(failures - 1, 10), RETRY_S[1]))

    async def take_back(self, me: Member, members: Members) -> None:
        """The others go on without us, as far as their leader can be reached now; also where a join was given up."""
        others = [manager_address(each) for each in members if each.id != me.id]
        try:
            async with asyncio.timeout(TAKE_BACK_S):
                for address in dict.fromkeys([*others, *self._addresses]):
                    try:
                        await self._peers.call(address, "DELETE", f"{MEMBERS}/{join_of(me.id)}")
                    except ShoalError as error:
                        log.info("event=not-taken-back manager=%s why=%s", address, error)
                    else:
                        return
        except TimeoutError:
            log.warning("event=not-taken-back why=no leader answered in %g s", TAKE_BACK_S)

    def _known(self) -> Iterable[str]:
        return list(dict.fromkeys(self._addresses))

    def _learn(self, found: list[RaftMember]) -> Members:
        self._addresses = list(dict.fromkeys([*self._addresses, *(each.manager_addr for each in found)]))
        return tuple(Member(f"{each.node_id}.{each.raft_id}", each.addr) for each in found)


def _report(failures: int, address: str, error: Exception) -> None:
    """Not each time: a swarm may be without a leader for long."""
    level = logging.INFO if failures in (0, 10, 100) or failures % 1000 == 0 else logging.DEBUG
    log.log(level, "event=not-added-yet manager=%s failures=%d why=%s", address, failures + 1, error)


async def leave(node: RaftNode, membership: RaftMembership, peers: Peers) -> None:
    """Have the managers go on without us. Raises ShoalError where they do not agree in time."""
    why: ShoalError = Unavailable("no leader could be asked")
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT_S):
            while not node.is_removed:
                try:
                    if node.is_leader:
                        await node.transfer_leadership()
                    elif leader := membership.leader_address():
                        path = f"{MEMBERS}/{join_of(node.me.id)}"
                        await peers.call(leader, "DELETE", path, timeout_s=LEAVE_TIMEOUT_S)
                        return
                except ShoalError as error:
                    why = error
                    log.info("event=not-left-yet why=%s", error)
                await asyncio.sleep(RETRY_S[0])
    except TimeoutError:
        raise why from None
