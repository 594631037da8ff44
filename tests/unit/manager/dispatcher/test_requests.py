"""Attachments of `docker run`, with the allocator and the other loops at work."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from shoal.api.messages import (
    Assignments,
    Attach,
    Detach,
    FindImage,
    FindNetwork,
    HeldImage,
    HeldImages,
    MayTake,
    Reply,
    Request,
    StatusUpdates,
)
from shoal.api.objects import TaskStatus
from shoal.api.specs import IPAMPool, NetworkSpec
from shoal.api.states import NodeState, TaskState
from shoal.manager.store.changes import Create, Delete
from shoal.worker.session import SessionLost
from tests.unit.manager.dispatcher.records import network, task
from tests.unit.manager.dispatcher.site import Peer, Site, until

BOX = "b" * 64


@pytest.fixture
async def led(site: Site) -> AsyncIterator[Site]:
    """A leader with all loops, three networks, and two nodes."""
    for each in ("n1", "n2"):
        site.add_node(each)
    for name, spec in {
        "open": NetworkSpec(name="open", attachable=True, pools=(IPAMPool(subnet="10.0.1.0/24"),)),
        "closed": NetworkSpec(name="closed"),
        "tiny": NetworkSpec(name="tiny", attachable=True, pools=(IPAMPool(subnet="10.9.9.0/30"),)),
        "ingress": NetworkSpec(name="ingress", ingress=True),
    }.items():
        bare = network(f"{name}-id")
        site.store.apply(Create(record=msgspec.structs.replace(bare, spec=spec, vni=0, ipam=())))
    await site.lead(deciding=True)
    yield site


def attach(number: int, target: str, container: str = BOX, **fields) -> Attach:
    return Attach(id=number, network=target, container_id=container, name="box", **fields)


async def ask(agent: Peer, request: Request) -> Reply:
    await agent.session.send(request)
    reply: Reply = await agent.next(Reply)
    assert reply.id == request.id
    return reply


async def test_a_container_gets_a_place_and_gives_it_back(led: Site):
    async with led.agent("n1") as agent, led.agent("n2") as other:
        reply = await ask(agent, attach(1, "open", aliases=("db",)))
        assert (reply.status, reply.error) == (200, "")
        given, info = reply.attachment, reply.network
        assert (info.id, info.name, info.attachable, info.subnet) == ("open-id", "open", True, "10.0.1.0/24")
        (place,) = given.attachments
        assert (place.network_id, place.addresses, place.mac) == ("open-id", ("10.0.1.2/24",), "02:42:0a:00:01:02")
        told = await agent.task(given.id)
        assert (told.spec.attachment, told.node_id) == (BOX, "n1")
        (theirs,) = (await ask(other, attach(1, "open-id", "c" * 64))).attachment.attachments
        assert theirs.addresses == ("10.0.1.3/24",)
        while ("open-id", given.id) not in other.memory.endpoints:
            await other.next(Assignments)
        assert other.memory.endpoints[("open-id", given.id)].names == ("box", "db", BOX[:12])
        status = TaskStatus(state=TaskState.RUNNING, message="attached")
        await agent.session.send(StatusUpdates(number=1, updates=((given.id, status),)))
        while not other.memory.endpoints[("open-id", given.id)].healthy:
            await other.next(Assignments)
        assert (await ask(agent, Detach(id=2, task_id=given.id))).status == 200
        while ("open-id", given.id) in other.memory.endpoints:
            await other.next(Assignments)
        again = await ask(agent, Detach(id=3, task_id=given.id))
        assert (again.status, "not found" in again.error) == (404, True)


async def test_asking_again_gives_the_same_place(led: Site):
    async with led.agent("n1") as agent:
        first = await ask(agent, attach(1, "open"))
        assert (await ask(agent, attach(2, "open-id"))).attachment.id == first.attachment.id
        other = await ask(agent, attach(3, "open", "c" * 64))
        assert other.attachment.id != first.attachment.id
    async with led.agent("n1", session_id=agent.info.session_id) as again:
        assert (await ask(again, attach(1, "open"))).attachment.id == first.attachment.id
    assert len(led.view.tasks) == 2


async def test_two_questions_at_once_make_one_place(led: Site):
    async with led.agent("n1") as agent:
        await until(lambda: led.view.networks["open-id"].vni)
        led.term.gate.clear()
        for number in (1, 2):
            await agent.session.send(attach(number, "open"))
        await agent.session.send(FindNetwork(id=3, network="open"))
        assert (await agent.next(Reply)).id == 3  # the other two were heard before, and wait for their commit
        led.term.gate.set()
        replies = [await agent.next(Reply) for _ in range(2)]
        assert replies[0].attachment.id == replies[1].attachment.id
        assert list(led.view.tasks) == [replies[0].attachment.id]


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        pytest.param(attach(1, "nowhere"), 404, "network nowhere not found", id="no-such-network"),
        pytest.param(attach(1, "ingress"), 404, "network ingress not found", id="ingress"),
        pytest.param(attach(1, "closed"), 403, "Could not attach to network closed: rpc error: code = PermissionDenied "
                     "desc = network closed not manually attachable", id="not-attachable"),
        pytest.param(attach(1, "open", ""), 400, "needs the id of its container", id="no-container"),
        pytest.param(attach(1, "open", address="10.77.0.1"), 400, "not of subnet 10.0.1.0/24", id="foreign-address"),
        pytest.param(attach(1, "open", address="x"), 400, "invalid address x", id="no-address"),
        pytest.param(attach(1, "open", aliases=("a" * 300,)), 400, "more than 255 characters", id="long-name"),
        pytest.param(Detach(id=1, task_id="theirs"), 404, "attachment theirs not found", id="another-node-s"),
        pytest.param(Detach(id=1, task_id="t1"), 404, "attachment t1 not found", id="no-attachment"),
        pytest.param(FindNetwork(id=1, network="nowhere"), 404, "network nowhere not found", id="find-nothing"),
    ],
)
async def test_refusals(led: Site, request_, status, says):
    theirs = task("t1", "n2")
    led.store.apply(Create(record=task("t1", "n1", service_id="")), Create(record=msgspec.structs.replace(
        theirs, id="theirs", service_id="", spec=msgspec.structs.replace(theirs.spec, attachment=BOX))))
    async with led.agent("n1") as agent:
        reply = await ask(agent, request_)
    assert (reply.status, says in reply.error) == (status, True), reply
    assert set(led.view.tasks) == {"t1", "theirs"}


async def test_a_network_without_room_says_so_and_keeps_nothing(led: Site):
    async with led.agent("n1") as agent:
        first = await ask(agent, attach(1, "tiny"))
        assert first.attachment.attachments[0].addresses == ("10.9.9.2/30",)
        full = await ask(agent, attach(2, "tiny", "c" * 64))
        assert full.status == 503 and "no free address on network tiny: all 1 of 10.9.9.0/30 are in use" in full.error
        taken = await ask(agent, attach(3, "tiny", "c" * 64, address="10.9.9.2"))
        assert taken.status == 409 and "address 10.9.9.2 is in use" in taken.error
        assert list(led.view.tasks) == [first.attachment.id]
        wanted = await ask(agent, attach(4, "open", "c" * 64, address="10.0.1.77"))
        assert wanted.attachment.attachments[0].addresses == ("10.0.1.77/24",)


async def test_networks_are_found_by_name_and_id_before_they_have_a_subnet_too(site: Site):
    site.add_node("n1")
    bare = msgspec.structs.replace(network("late-id"), spec=NetworkSpec(name="late"), vni=0, ipam=())
    site.store.apply(Create(record=bare))
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.session.send(FindNetwork(id=1, network="late"))
        await until(lambda: site.state("n1") is NodeState.READY)
        await site.resign()
    await site.lead(deciding=True)
    async with site.agent("n1") as agent:
        for number, reference in enumerate(("late", "late-id", "late-")):
            reply = await ask(agent, FindNetwork(id=number, network=reference))
            assert (reply.network.name, reply.network.attachable) == ("late", False)
            assert reply.network.subnet


async def test_places_go_with_their_node(led: Site):
    async with led.agent("n1") as agent:
        given = (await ask(agent, attach(1, "open"))).attachment
    led.store.apply(Delete(table="node", id="n1"))
    await until(lambda: given.id not in led.view.tasks)


async def test_questions_are_bounded(site: Site):
    site.add_node("n1")
    site.store.apply(Create(record=network("w1")))
    await site.lead()  # no allocator: nobody gets an address
    async with site.agent("n1") as agent:
        for number in range(1, 66):
            await agent.session.send(attach(number, "w1", f"{number:064}"))
        reply = await agent.next(Reply)
        assert (reply.id, reply.status) == (65, 503) and "too many" in reply.error


async def test_images_are_found_at_other_hosts_private_ones_for_tasks_alone(site: Site):
    for each in ("n1", "n2", "n3"):
        site.add_node(each)
    site.store.apply(Create(record=task("t1", "n2")))  # of image "i"
    await site.lead()
    manifests = [f"sha256:{letter * 64}" for letter in "ab"]
    async with site.agent("n1") as holder, site.agent("n2") as user, site.agent("n3") as other:
        await holder.session.send(HeldImages(complete=True, held=(
            HeldImage(manifest=manifests[0], names=("docker.io/library/i:latest",), private=True),
            HeldImage(manifest=manifests[1], names=("docker.io/library/free:1",)))))
        reply = await ask(holder, FindImage(id=1, image="free:1"))  # said after what it holds
        assert reply.status == 404 and "no other host has image free:1" in reply.error
        found = (await ask(user, FindImage(id=1, image="i"))).image
        assert (found.digest, found.private) == (manifests[0], True)
        assert found.peers == (f"{site.view.nodes['n1'].status.addr}:7946",)
        assert (await ask(other, FindImage(id=1, image="i"))).status == 404
        assert (await ask(other, FindImage(id=2, image="free:1"))).image.digest == manifests[1]
        assert (await ask(holder, MayTake(id=2, node_id="n2", manifest=manifests[0]))).status == 200
        assert (await ask(holder, MayTake(id=3, node_id="n3", manifest=manifests[0]))).status == 403
        assert (await ask(other, FindImage(id=3, image="Not a name"))).status == 400
    async with site.agent("n3") as other:
        assert (await ask(other, FindImage(id=1, image="free:1"))).status == 404  # its holder has gone


async def test_a_host_that_says_what_no_host_may_say_is_dropped(site: Site):
    site.add_node("n1")
    await site.lead()
    async with site.agent("n1") as agent:
        await agent.session.send(HeldImages(held=(HeldImage(manifest="nothing"),)))
        with pytest.raises(SessionLost):
            await agent.next(Reply)
