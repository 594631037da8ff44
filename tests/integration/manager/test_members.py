"""How managers come and go: joins that are cut off, wiped folders, new addresses, demotion, promotion, leaving."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shoal.api.states import Role
from shoal.worker.credentials import Credentials
from shoal.worker.renew import Renewer
from tests.integration.manager.hosts import Host, Hosts, until


async def managers_shown(host: Host) -> dict[str, Any]:
    """Hostname → ManagerStatus of the nodes that have one."""
    return {node["Description"]["Hostname"]: node["ManagerStatus"]
            for node in await host.get("/nodes") if node.get("ManagerStatus")}


async def has_managers(host: Host, count: int) -> None:
    async def has() -> bool:
        info = await host.info()
        return info is not None and info.managers == count and len(await managers_shown(host)) == count

    await until(has)


def joins(host: Host) -> list[str]:
    return [path.name for path in (host.data / "swarm" / "raft").iterdir()]


async def test_those_who_have_joined_are_shown(hosts: Hosts) -> None:
    first, second = await hosts.swarm(2)
    shown = await managers_shown(second)
    assert set(shown) == {"m1", "m2"}
    assert shown["m1"] == {"Leader": True, "Reachability": "reachable", "Addr": f"{first.address}:2377"}
    assert shown["m2"] == {"Reachability": "reachable", "Addr": f"{second.address}:2377"}
    info = await second.info()
    assert info is not None
    assert (info.leader_node_id, info.managers, info.nodes) == (first.node_id, 2, 2)
    assert {peer.addr for peer in info.remote_managers} == {f"{each.address}:2377" for each in (first, second)}


async def test_a_follower_takes_in_who_joins_through_it(hosts: Hosts) -> None:
    _, second = await hosts.swarm(2)
    third = hosts.new()
    await third.join(second)
    await has_managers(third, 3)


async def test_a_dead_manager_is_shown_as_unreachable(hosts: Hosts) -> None:
    first, _, third = await hosts.swarm(3)
    third.kill()

    async def is_shown() -> bool:
        return (await managers_shown(first))["m3"]["Reachability"] == "unreachable"

    await until(is_shown)


# --- joins that are cut off ---


def raft_folder(host: Host) -> bool:
    return (host.data / "swarm" / "raft").exists()


def journal(host: Host) -> bool:
    return any((host.data / "swarm" / "raft").glob("*/journal"))


def serving(host: Host) -> bool:
    return host.said("event=serving")


def heard_of_leader(host: Host) -> bool:
    return host.said("event=leader ")


def member(host: Host) -> bool:
    return host.said(f"@{host.address}:2378")


@pytest.mark.parametrize("moment", [raft_folder, journal, serving, heard_of_leader, member])
@pytest.mark.parametrize("again", ["run", "join"])
async def test_a_join_that_was_killed_is_finished(hosts: Hosts, moment: Callable[[Host], bool], again: str) -> None:
    first, second = hosts.new(), hosts.new()
    await first.init()
    await second.enroll(await first.token(Role.MANAGER), first)
    second.spawn("join")

    async def has_come() -> bool:
        return moment(second)

    await until(has_come)
    second.kill()
    second.spawn(again)
    await second.ready()
    await has_managers(second, 2)
    assert (await second.create_service("works"))[0] == 201
    assert await first.services() == ["works"]
    assert len(joins(second)) == 1


async def test_a_wiped_folder_joins_afresh_and_the_old_member_goes(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    assert (await first.create_service("kept"))[0] == 201
    third.kill()
    (before,) = joins(third)
    shutil.rmtree(third.data / "swarm" / "raft")
    third.spawn("join")
    await third.ready()
    (after,) = joins(third)
    assert before != after, "a name never speaks for two logs"
    await has_managers(third, 3)
    second.kill()  # two of three: the new member's vote counts, the old one's does not
    await hosts.leader(first, third)
    assert await third.services() == ["kept"]


async def test_a_join_that_is_given_up_leaves_the_others_whole(hosts: Hosts) -> None:
    first, second = hosts.new(), hosts.new()
    await first.init()
    await second.enroll(await first.token(Role.MANAGER), first)
    second.spawn("join")
    await until(second.info)
    await second.call("POST", "/internal/stop")
    assert await second.ended() == 0
    await has_managers(first, 1)
    assert (await first.create_service("works"))[0] == 201


async def test_a_manager_with_a_new_address_is_found_again(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    third.kill()
    moved = third.address.replace("127.78.", "127.79.")
    credentials = Credentials(third.data / "swarm")
    identity = credentials.load()
    assert identity is not None
    credentials.save(msgspec.structs.replace(identity, advertise_addr=moved, listen_addr=moved))
    third.spawn("run")
    await third.ready()

    async def is_shown() -> bool:
        return bool((await managers_shown(first))["m3"]["Addr"] == f"{moved}:2377")

    await until(is_shown)
    first.kill()
    await hosts.leader(second, third)


async def test_the_only_manager_may_have_a_new_address(hosts: Hosts) -> None:
    first = hosts.new()
    await first.init()
    first.kill()
    first.address = first.address.replace("127.78.", "127.79.")
    credentials = Credentials(first.data / "swarm")
    identity = credentials.load()
    assert identity is not None
    credentials.save(msgspec.structs.replace(identity, advertise_addr=first.address, listen_addr=first.address))
    first.spawn("run")
    await first.ready()
    second = hosts.new()
    await second.join(first)
    assert set(await managers_shown(second)) == {"m1", "m2"}


# --- roles ---


async def test_a_demoted_follower_is_taken_out(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    assert (await second.set_role(third.node_id, "worker"))[0] == 200
    await has_managers(first, 2)
    await third.says("event=removed")
    status, body = await third.call("GET", "/services")
    assert (status, "This node is not a swarm manager" in body["message"]) == (503, True)
    third.kill()
    third.spawn("run")
    assert await third.ended() == 1
    assert third.last_words() == f"node {third.node_id} is not a manager of this swarm any more"
    second.kill()  # one of two is no majority: the demoted one does not count

    async def leads_no_more() -> bool:
        info = await first.info()
        return info is not None and not info.is_leader

    await until(leads_no_more)


async def test_a_demoted_leader_hands_over_first(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    assert (await first.set_role(first.node_id, "worker"))[0] == 200
    await hosts.leader(second, third)
    await has_managers(second, 2)
    assert set(await managers_shown(third)) == {"m2", "m3"}
    assert (await third.create_service("goes-on"))[0] == 201


async def test_the_last_manager_cannot_be_demoted(hosts: Hosts) -> None:
    first = hosts.new()
    await first.init()
    status, body = await first.set_role(first.node_id, "worker")
    assert (status, "last manager" in body["message"]) == (400, True)


async def test_a_quorum_is_not_demoted_away(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    third.kill()

    async def is_unreachable() -> bool:
        return (await managers_shown(first))["m3"]["Reachability"] == "unreachable"

    await until(is_unreachable)
    status, body = await first.set_role(second.node_id, "worker")
    assert (status, "loss of quorum" in body["message"]) == (400, True)
    assert (await first.set_role(third.node_id, "worker"))[0] == 200  # the dead one may go
    await has_managers(first, 2)


async def test_a_worker_is_promoted_demoted_and_promoted_again(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    second = hosts.new()
    await second.enroll(await first.token(Role.WORKER), first)
    credentials = Credentials(second.data / "swarm")
    credentials.load()
    names = set()
    for _ in range(2):
        assert (await first.set_role(second.node_id, "manager"))[0] == 200
        await Renewer(credentials, lambda: [f"{first.address}:2377"]).renew()  # what the agent does
        second.spawn("join")
        await second.ready()
        await has_managers(second, 2)
        names.update(joins(second))
        assert (await first.set_role(second.node_id, "worker"))[0] == 200
        await has_managers(first, 1)
        await Renewer(credentials, lambda: [f"{first.address}:2377"]).renew()
        await second.call("POST", "/internal/stop")
        assert await second.ended() == 0
        shutil.rmtree(second.data / "swarm" / "raft")
        assert (await first.create_service(f"after{len(names)}"))[0] == 201
    assert len(names) == 2


# --- leaving ---


@pytest.mark.parametrize("leaves", [pytest.param(0, id="leader"), pytest.param(2, id="follower")])
async def test_a_manager_that_leaves_is_out_and_down(hosts: Hosts, leaves: int) -> None:
    swarm = await hosts.swarm(3)
    leaving = swarm.pop(leaves)
    node_id = leaving.node_id
    assert (await leaving.call("POST", "/internal/leave", {"force": True}))[0] == 200
    await leaving.call("POST", "/internal/stop")
    assert await leaving.ended() == 0
    await hosts.leader(*swarm)
    await has_managers(swarm[0], 2)
    node = await swarm[0].get(f"/nodes/{node_id}")
    assert (node["Status"]["State"], node["Spec"]["Role"]) == ("down", "worker")
    assert (await swarm[1].call("DELETE", f"/nodes/{node_id}"))[0] == 200, "it can be removed without more ado"
    assert (await swarm[0].create_service("goes-on"))[0] == 201


async def test_the_last_manager_leaves_by_force_only(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    status, body = await first.call("POST", "/internal/leave", {"force": False})
    assert (status, "last manager" in body["message"]) == (503, True)
    assert (await first.call("POST", "/internal/leave", {"force": True}))[0] == 200


async def test_an_address_that_others_cannot_reach_is_not_added(hosts: Hosts) -> None:
    """The leader looks before it counts on a newcomer: a member that is not there would cost the quorum."""
    (first,) = await hosts.swarm(1)
    second = hosts.new()
    await second.enroll(await first.token(Role.MANAGER), first)
    credentials = Credentials(second.data / "swarm")
    identity = credentials.load()
    assert identity is not None
    wrong = second.address.replace("127.78.", "127.80.")
    credentials.save(msgspec.structs.replace(identity, advertise_addr=wrong))
    second.spawn("join")
    await second.says(f"the leader cannot reach the manager at {wrong}:2378")
    assert (await first.create_service("works"))[0] == 201
    assert set(await managers_shown(first)) == {"m1"}
