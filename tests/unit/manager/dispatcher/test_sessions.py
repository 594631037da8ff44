"""Sessions over real TLS, with the agent's own session code at the other end."""

import asyncio
import contextlib
import time

import aiohttp
import msgspec
import pytest

from shoal.api.errors import NoLeader, Unavailable
from shoal.api.messages import (
    MAX_FRAME_BYTES,
    Applied,
    Assignments,
    DescriptionUpdate,
    Heartbeat,
    Hello,
    NetworkEndpoint,
    Redirect,
    Release,
    SessionInfo,
    StatusAck,
    StatusUpdates,
    encode,
    to_agent,
)
from shoal.api.objects import NodeDescription, TaskStatus
from shoal.api.states import NodeState, Role, TaskState
from shoal.manager.ca.issue import new_root
from shoal.manager.ca.tls import HostTLS
from shoal.manager.dispatcher.session import OUTBOX_FRAMES, Session
from shoal.manager.store.apply import Event, apply
from shoal.manager.store.changes import Command, Create, Delete, SetTaskStatus, Update
from shoal.worker.session import SessionLost
from tests.unit.manager.ca.test_server import host_files
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, WORKER
from tests.unit.manager.dispatcher.records import network, service, task
from tests.unit.manager.dispatcher.site import Site, until

S = TaskState
SESSION = "/dispatcher/v1/session"


# --- beginning ---


async def test_a_session_begins_with_what_a_node_must_know(site: Site):
    site.add_node("n1")
    site.store.apply(Create(record=network("w1")), Create(record=task("t1", "n1", "w1")))
    await site.lead()
    async with site.agent("n1") as agent:
        info = agent.info
        assert (info.node_id, info.role, info.leader, info.cluster_id, info.lease_s, info.data_path_port) == (
            "n1", Role.WORKER, MANAGER, CLUSTER, 3.0, 4789)
        assert [each.addr for each in info.managers] == [site.addr]
        assert info.root_ca_pem == site.view.cluster.root_ca.cert_pem
        first = await agent.next()
        assert (first.complete, [each.id for each in first.tasks]) == (True, ["t1"])
        await until(lambda: site.state("n1") is NodeState.READY)
        stored = site.view.nodes["n1"]
        assert (stored.status.addr, stored.description.hostname) == ("192.0.2.9", "h-n1")


async def test_a_manager_s_own_host_has_a_session_too(site: Site):
    await site.lead()
    async with site.agent(MANAGER, tls=site.tls) as agent:
        assert agent.info.role is Role.MANAGER and (await agent.next()).complete


async def test_an_address_that_is_none_is_where_the_agent_calls_from(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1", addr="nonsense"):
        await until(lambda: site.view.nodes["n1"].status.addr == "127.0.0.1")


async def refused(site: Site, tls: HostTLS | None, path: str = SESSION) -> int:
    connector = aiohttp.TCPConnector(ssl=tls.client if tls else False)
    async with aiohttp.ClientSession(connector=connector) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
            await client.ws_connect(f"https://{site.addr}{path}")
    return failed.value.status


async def test_strangers_are_refused(site: Site, tmp_path):
    await site.lead()
    before = site.view
    assert await refused(site, None) == 403
    assert await refused(site, site.certificate("nobody")) == 403
    assert await refused(site, site.certificate(WORKER, cluster_id="another")) == 403
    foreign = host_files(tmp_path / "foreign", new_root(time.time()), WORKER, Role.WORKER)
    foreign.client.load_verify_locations(cadata=before.cluster.root_ca.cert_pem)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=foreign.client)) as client:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await client.ws_connect(f"https://{site.addr}{SESSION}")
    assert site.view is before


async def test_nothing_is_left_of_a_session_that_could_not_begin(site: Site):
    site.add_node("n1")
    await site.lead()
    root = msgspec.structs.replace(site.view.cluster.root_ca, cert_pem="\udc80")  # cannot be sent
    broken = Update(record=msgspec.structs.replace(site.view.cluster, root_ca=root))
    site.term.shown = apply(site.view, 99, Command(request_id="broken", changes=(broken,), at=0.0)).state
    with pytest.raises((SessionLost, Unavailable)):
        async with site.agent("n1"):
            pass
    site.term.shown = None
    async with site.agent("n1") as agent:
        assert (await agent.next()).complete


async def test_who_does_not_lead_says_who_does(site: Site):
    site.leader_addr = "192.0.2.5:2377"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.certificate(WORKER).client)) as client:
        socket = await client.ws_connect(f"https://{site.addr}{SESSION}")
        await socket.send_bytes(encode(Hello(description=NodeDescription())))
        assert to_agent.decode((await socket.receive()).data) == Redirect(leader_addr="192.0.2.5:2377")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_sessions_end_with_the_office_and_begin_with_the_next(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.next()
        site.leader_addr = "127.0.0.1:1"
        await site.resign()
        assert await agent.next() == Redirect(leader_addr="127.0.0.1:1")
        with pytest.raises(SessionLost):
            await agent.next()
    with pytest.raises((NoLeader, Unavailable)):
        async with site.agent("n1"):
            pass
    await site.lead()
    async with site.agent("n1", session_id=agent.info.session_id) as again:
        assert (await again.next()).complete and again.info.session_id != agent.info.session_id


async def test_a_lost_office_ends_the_loop_and_the_sessions(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await until(lambda: site.state("n1") is NodeState.READY)
        site.term.deposed = True
        await agent.session.send(DescriptionUpdate(description=NodeDescription(hostname="other")))
        assert isinstance(await agent.next(Redirect), Redirect)
        with pytest.raises(ExceptionGroup) as ended:
            await site.dispatching
        assert ended.value.subgroup(NoLeader)


# --- one node, two hosts ---


async def test_a_clone_is_refused_while_the_first_is_there(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.next()
        with pytest.raises(Unavailable):
            async with site.agent("n1"):
                pass
        await agent.session.send(Heartbeat())
        site.store.apply(Create(record=task("t1", "n1")))
        assert (await agent.task("t1")).id == "t1"


async def test_the_same_agent_takes_over_its_own_session(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as old:
        await old.next()
        async with site.agent("n1", session_id=old.info.session_id) as new:
            assert (await new.next()).complete
            with pytest.raises(SessionLost):
                await old.next()
            site.store.apply(Create(record=task("t1", "n1")))
            assert (await new.task("t1")).id == "t1"
    assert site.state("n1") is NodeState.READY


# --- telling ---


async def test_a_burst_is_a_message_and_a_change_is_told_at_once(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.next(Assignments)
        site.store.apply(*(Create(record=task(f"t{number}", "n1")) for number in range(200)))
        for _ in range(10):
            site.store.apply(*(SetTaskStatus(id=f"t{number}", status=TaskStatus(state=S.RUNNING))
                               for number in range(200)))
        await agent.task("t199")
        assert len(agent.memory.tasks) == 200
        assert sum(isinstance(each, Assignments) for each in agent.received) <= 3
        delays = []
        for number in range(20):
            began = asyncio.get_running_loop().time()
            site.store.apply(Create(record=task(f"t{1000 + number}", "n1")))
            await agent.task(f"t{1000 + number}")
            delays.append(asyncio.get_running_loop().time() - began)
        assert sorted(delays)[10] < 0.05, "milliseconds, whatever else this machine does"


async def test_what_a_node_must_know_is_said_again_when_it_changes(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.next()
        stored = site.view.nodes["n1"]
        promoted = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, role=Role.MANAGER))
        site.store.apply(Update(record=promoted, wanted=True))
        assert (await agent.next(SessionInfo)).role is Role.MANAGER
        site.set_lease(7)
        assert (await agent.next(SessionInfo)).lease_s == 7
        site.store.apply(Delete(table="node", id=MANAGER))
        assert (await agent.next(SessionInfo)).managers == ()
        site.store.apply(Delete(table="node", id="n1"))
        with pytest.raises(SessionLost):
            await agent.next()


async def test_a_stop_waits_for_every_node_of_the_network(site: Site):
    for each in ("n1", "n2", "n3"):
        site.add_node(each)
    site.store.apply(Create(record=network("w1")), Create(record=service("s1", "w1")),
                     Create(record=task("t1", "n1", "w1", state=S.RUNNING)),
                     Create(record=task("t2", "n2", "w1", state=S.RUNNING)))
    await site.lead()
    async with site.agent("n1") as first, site.agent("n2") as second, site.agent("n3") as third:
        for agent in (first, second, third):
            await agent.next(Assignments)
        await until(lambda: all(site.state(each) is NodeState.READY for each in ("n1", "n2", "n3")))
        stopped = msgspec.structs.replace(site.view.tasks["t1"], desired=S.SHUTDOWN)
        site.store.apply(Update(record=stopped))
        await first.task("t1", lambda told: told.desired is S.SHUTDOWN)
        while second.memory.services[("w1", "s1")].backends != ("10.0.1.2",):
            await second.next(Assignments)
        await first.session.send(Applied(sequence=first.sequence))
        site.store.apply(Create(record=task("t5", "n1")))  # a message after which a release would have been seen
        await first.task("t5")
        assert not any(isinstance(each, Release) for each in first.received)
        await second.session.send(Applied(sequence=second.sequence))
        assert await first.next(Release) == Release(task_ids=("t1",))
        assert ("w1", "t1") in second.memory.endpoints, "connections that it has can drain"
        site.store.apply(SetTaskStatus(id="t1", status=TaskStatus(state=S.SHUTDOWN)))
        while ("w1", "t1") in second.memory.endpoints:
            await second.next(Assignments)
        assert len(third.received) == 1, "it has nothing to do with that network"


async def test_a_stop_does_not_wait_for_a_node_that_left_nor_for_ever(site: Site):
    for each in ("n1", "n2"):
        site.add_node(each)
    site.store.apply(Create(record=network("w1")), *(
        Create(record=task(f"t{number}", f"n{number}", "w1", state=S.RUNNING)) for number in (1, 2)))
    await site.lead()
    async with site.agent("n1") as first:
        await first.next(Assignments)
        async with site.agent("n2") as second:
            await second.next(Assignments)
            site.store.apply(Update(record=msgspec.structs.replace(site.view.tasks["t1"], desired=S.SHUTDOWN)))
            await first.task("t1", lambda told: told.desired is S.SHUTDOWN)
            await first.session.send(Applied(sequence=first.sequence))
        left = asyncio.get_running_loop().time()
        assert await first.next(Release) == Release(task_ids=("t1",))
        assert asyncio.get_running_loop().time() - left < 1.5
        site.store.apply(Create(record=task("t3", "n1", "w1", state=S.RUNNING)))
        await first.task("t3")
        site.store.apply(Update(record=msgspec.structs.replace(site.view.tasks["t3"], desired=S.SHUTDOWN)))
        began = asyncio.get_running_loop().time()
        assert await first.next(Release) == Release(task_ids=("t3",))  # although n1 never says that it has it
        assert 1.5 < asyncio.get_running_loop().time() - began < 6


# --- hearing ---


def updates(number: int, *states: tuple[str, TaskState]) -> StatusUpdates:
    return StatusUpdates(number=number, updates=tuple((task_id, TaskStatus(state=state, message="m", timestamp=1.0))
                                                      for task_id, state in states))


async def test_statuses_are_acknowledged_once_they_are_committed(site: Site):
    site.add_node("n1")
    site.store.apply(*(Create(record=task(f"t{number}", "n1")) for number in (1, 2)))
    await site.lead()
    async with site.agent("n1") as agent:
        await until(lambda: site.state("n1") is NodeState.READY)
        site.term.gate.clear()
        await agent.session.send(updates(1, ("t1", S.RUNNING), ("t2", S.ACCEPTED)))
        site.store.apply(Create(record=task("t9", "n1")))
        await agent.task("t9")
        assert not any(isinstance(each, StatusAck) for each in agent.received)
        site.term.gate.set()
        assert await agent.next(StatusAck) == StatusAck(number=1)
        assert (site.view.tasks["t1"].status.state, site.view.tasks["t2"].status.state) == (S.RUNNING, S.ACCEPTED)
        commits = len(site.term.proposals)
        await agent.session.send(updates(2, ("t1", S.STARTING)))
        assert await agent.next(StatusAck) == StatusAck(number=2)
        assert site.view.tasks["t1"].status.state is S.RUNNING and len(site.term.proposals) == commits


async def test_a_node_speaks_for_its_own_tasks_only(site: Site):
    for each in ("n1", "n2"):
        site.add_node(each)
    site.store.apply(Create(record=task("t1", "n1")), Create(record=task("t2", "n2")))
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.session.send(updates(1, ("t2", S.FAILED), ("t1", S.RUNNING)))
        assert await agent.next(StatusAck) == StatusAck(number=1)
    assert (site.view.tasks["t1"].status.state, site.view.tasks["t2"].status.state) == (S.RUNNING, S.ASSIGNED)


async def test_many_statuses_are_few_commits(site: Site):
    site.add_node("n1")
    site.store.apply(*(Create(record=task(f"t{number}", "n1")) for number in range(500)))
    await site.lead()
    async with site.agent("n1") as agent:
        await until(lambda: site.state("n1") is NodeState.READY)
        site.term.proposals.clear()
        for number in range(500):
            await agent.session.send(updates(number + 1, (f"t{number}", S.RUNNING)))
        while (await agent.next(StatusAck)).number < 500:
            pass
        assert sum(site.term.proposals) == 500 and len(site.term.proposals) < 100


async def test_a_description_that_changes_is_stored(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.session.send(DescriptionUpdate(description=NodeDescription(hostname="new")))
        await until(lambda: site.view.nodes["n1"].description.hostname == "new")
        assert site.state("n1") is NodeState.READY


@pytest.mark.parametrize("frame", [
    pytest.param(b"garbage", id="garbage"),
    pytest.param(b"", id="empty"),
    pytest.param(b"\xdb\x7f\xff\xff\xff", id="cut-msgpack"),
    pytest.param(b"\x81" * 100_000, id="nested-deeply"),
    pytest.param(encode(Release(task_ids=("t1",))), id="a-manager-s-message"),
    pytest.param(encode(Hello(description=NodeDescription())), id="a-second-hello"),
    pytest.param(encode(DescriptionUpdate(description=NodeDescription(hostname="x" * 300_000))), id="a-huge-host"),
    pytest.param(b"x" * (MAX_FRAME_BYTES + 1), id="too-large"),
])
async def test_a_bad_frame_closes_its_session_and_no_other(site: Site, frame):
    for each in ("n1", "n2"):
        site.add_node(each)
    await site.lead()
    async with site.agent("n1") as bad, site.agent("n2") as good:
        await bad.next()
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # it may be closed before all of it is sent
            await bad.session._socket.send_bytes(frame)
        with pytest.raises(SessionLost):
            await bad.next()
        await good.session.send(Heartbeat())
        site.store.apply(Create(record=task("t1", "n2")))
        await good.task("t1")


@pytest.mark.parametrize("first", [
    pytest.param(b"garbage", id="garbage"),
    pytest.param(encode(Heartbeat()), id="no-hello"),
    pytest.param(encode(Hello(description=NodeDescription(hostname="x" * 300_000))), id="a-huge-hello"),
])
async def test_a_session_that_begins_badly_does_not_begin(site: Site, first):
    await site.lead()
    before = site.view
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.certificate(WORKER).client)) as client:
        socket = await client.ws_connect(f"https://{site.addr}{SESSION}")
        await socket.send_bytes(first)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert site.view is before


async def test_who_does_not_keep_up_is_dropped():
    session = Session(None, "n1", "s1", 0.0)
    for _ in range(OUTBOX_FRAMES):
        session.say(StatusAck(number=1))
        assert not session.ending
    session.say(StatusAck(number=1))
    assert session.ending


async def test_one_message_is_never_too_much():
    session = Session(None, "n1", "s1", 0.0)
    one = NetworkEndpoint(id="t1", network_id="w1", address="10.0.0.1", mac="02", node_id="n1", node_addr="192.0.2.1",
                          names=("x" * 300,))
    assert session.assign(Assignments(sequence=0, complete=True, endpoints=(one,) * 200_000)) > 4
    assert not session.ending
    session.say(StatusAck(number=1))
    assert session.ending


# --- leases ---


async def test_a_node_is_down_when_its_lease_has_run_out_not_when_it_hangs_up(site: Site):
    site.set_lease(0.6)
    site.add_node("n1")
    await site.lead()
    loop = asyncio.get_running_loop()
    async with site.agent("n1"):
        await until(lambda: site.state("n1") is NodeState.READY)
    hung_up = loop.time()
    async with site.agent("n1") as agent:  # back within its lease
        await agent.next()
        seen = {site.state("n1")}
        while loop.time() < hung_up + 1.0:
            await agent.session.send(Heartbeat())
            await asyncio.sleep(0.02)
            seen.add(site.state("n1"))
        assert seen == {NodeState.READY}
        silent = loop.time()
        await until(lambda: site.state("n1") is NodeState.DOWN)
        assert 0.2 < loop.time() - silent < 3
        with pytest.raises(SessionLost):  # it has to begin anew
            while True:
                await agent.next()
    assert site.view.nodes["n1"].status.message == "heartbeat failure"
    async with site.agent("n1"):
        await until(lambda: site.state("n1") is NodeState.READY)


async def test_a_node_that_is_back_while_its_end_is_being_committed_is_ready(site: Site):
    site.set_lease(0.4)
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await until(lambda: site.state("n1") is NodeState.READY)
        site.term.gate.clear()
        with pytest.raises(SessionLost):  # its lease has run out, and that is on its way to the store
            while True:
                await agent.next()
    async with site.agent("n1") as again:
        site.term.gate.set()
        with site.store.watch() as watch:
            await until(lambda: [each for each in watch.drain() if isinstance(each, Event) and each.id == "n1"])
        await again.session.send(Heartbeat())
        await until(lambda: site.state("n1") is NodeState.READY)


async def test_a_manager_that_was_stalled_blames_nobody_for_it(site: Site):
    site.set_lease(0.6)
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await until(lambda: site.state("n1") is NodeState.READY)
        with site.store.watch() as watch:
            site.store.apply(Create(record=task("t0", "n1")))
            await agent.task("t0")  # nothing is on its way now
            time.sleep(1.5)
            site.store.apply(Create(record=task("t1", "n1")))
            await agent.task("t1")
            began = time.monotonic()
            while time.monotonic() < began + 1:
                await agent.session.send(Heartbeat())
                await asyncio.sleep(0.02)
            assert not [each for each in watch.drain() if isinstance(each, Event) and each.table == "node"]


async def test_a_store_that_was_replaced_is_told_anew(site: Site):
    for each in ("n1", "n2"):
        site.add_node(each)
    site.store.apply(Create(record=task("t1", "n1")))
    await site.lead()
    async with site.agent("n1") as agent, site.agent("n2") as other:
        await agent.next(Assignments)
        await other.next(Assignments)
        before = site.view
        site.store.apply(Create(record=task("t2", "n1")), Delete(table="node", id="n2"))
        after = site.view
        await agent.task("t2")
        site.store.memory.install(before)
        while "t2" in agent.memory.tasks:
            assert (await agent.next(Assignments)).complete
        site.store.memory.install(after)
        assert (await agent.task("t2")).id == "t2"
        with pytest.raises(SessionLost):
            while True:
                await other.next()


async def test_the_route_takes_nothing_but_sessions(site: Site):
    await site.lead()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.certificate(WORKER).client)) as client:
        async with client.get(f"https://{site.addr}{SESSION}") as response:
            assert response.status == 400
        async with client.post(f"https://{site.addr}{SESSION}") as response:
            assert response.status in (404, 405)


async def test_a_new_leader_waits_a_lease_for_those_who_were_there(site: Site):
    site.set_lease(0.4)
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1"):
        await until(lambda: site.state("n1") is NodeState.READY)
        await site.resign()
    began = asyncio.get_running_loop().time()
    await site.lead()
    await until(lambda: site.state("n1") is NodeState.DOWN)
    assert asyncio.get_running_loop().time() - began > 2
