"""Subnets, VNIs, virtual addresses, ports and the addresses of tasks."""

import msgspec
import pytest

from shoal.api.errors import Conflict, InvalidArgument
from shoal.api.objects import IPAMConfig, Network, Task
from shoal.api.specs import (
    EndpointSpec,
    IPAMPool,
    NetworkAttachmentSpec,
    NetworkSpec,
    PortConfig,
    RestartPolicy,
    TaskSpec,
)
from shoal.api.states import NodeState, TaskState
from shoal.manager.allocator.ipam import AddressPool, check_pools, free_subnet, mac_of
from shoal.manager.allocator.ports import Ports
from shoal.manager.allocator.vni import LAST as LAST_VNI
from shoal.manager.allocator.vni import VNIs
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service


@pytest.mark.parametrize(
    ("taken", "subnet"),
    [
        pytest.param([], "10.0.1.0/24", id="the first is the ingress network's"),
        pytest.param(["10.0.1.0/24"], "10.0.2.0/24", id="next"),
        pytest.param(["10.0.2.0/24"], "10.0.1.0/24", id="hole"),
        pytest.param(["10.0.0.0/16"], "10.1.0.0/24", id="past a large one"),
        pytest.param(["10.0.1.128/25"], "10.0.2.0/24", id="past a small one"),
        pytest.param(["192.168.0.0/24"], "10.0.1.0/24", id="elsewhere"),
        pytest.param(["10.0.0.0/8"], None, id="exhausted"),
    ],
)
def test_free_subnet(taken, subnet):
    assert free_subnet(["10.0.0.0/8"], 24, taken) == subnet


def test_the_next_pool_is_used_when_one_is_full():
    assert free_subnet(["10.0.0.0/24", "172.20.0.0/16"], 24, []) == "172.20.0.0/24"


@pytest.mark.parametrize(
    ("pool", "error", "words"),
    [
        (IPAMPool(subnet="nonsense"), InvalidArgument, "invalid subnet"),
        (IPAMPool(subnet="10.9.0.0/31"), InvalidArgument, "no room"),
        (IPAMPool(subnet="2001:db8::/64"), InvalidArgument, "IPv4"),
        (IPAMPool(subnet="10.9.0.0/24", gateway="10.8.0.1"), InvalidArgument, "not within"),
        (IPAMPool(gateway="10.8.0.1"), InvalidArgument, "needs a subnet"),
        (IPAMPool(subnet="10.9.0.0/24", ip_range="10.8.0.0/25"), InvalidArgument, "not within"),
        (IPAMPool(subnet="10.1.2.0/25"), Conflict, "overlaps with the one of network web"),
    ],
)
def test_pools_that_are_refused(pool, error, words):
    with pytest.raises(error, match=words):
        check_pools([pool], [("web", "10.1.0.0/16")])


def test_pools_that_are_taken():
    pool = IPAMPool(subnet="10.9.0.0/24", gateway="10.9.0.254", ip_range="10.9.0.128/25")
    check_pools([pool], [("web", "10.8.0.0/24")])


def test_a_mac_follows_from_its_address():
    assert mac_of("10.0.1.255") == "02:42:0a:00:01:ff"


def test_a_pool_gives_each_address_once_and_lets_one_rest_before_it_is_given_again():
    pool = AddressPool(IPAMConfig(subnet="10.9.0.0/29", gateway="10.9.0.1"))
    given = [pool.take(f"o{number}") for number in range(6)]
    assert given == [f"10.9.0.{last}/29" for last in (2, 3, 4, 5, 6)] + [None]
    pool.release("10.9.0.3/29", "o1")
    pool.release("10.9.0.2/29", "not its owner")
    assert pool.take("x") == "10.9.0.3/29"
    pool.release("10.9.0.2/29", "o0")
    assert pool.take("y") == "10.9.0.2/29"
    assert (pool.used, pool.size) == (5, 5)


@pytest.mark.parametrize(
    ("address", "granted"),
    [("10.9.0.4", True), ("10.9.0.1", False), ("10.9.1.4", False), ("10.9.0.2", False)],
)
def test_an_address_that_is_asked_for(address, granted):
    pool = AddressPool(IPAMConfig(subnet="10.9.0.0/29", gateway="10.9.0.1"))
    assert pool.take("first") == "10.9.0.2/29"
    assert pool.claim(address, "other") == granted


def test_a_range_narrows_what_is_given():
    pool = AddressPool(IPAMConfig(subnet="10.9.0.0/24", gateway="10.9.0.1", ip_range="10.9.0.240/30"))
    given = [pool.take(str(number)) for number in range(5)]
    assert given == ["10.9.0.240/24", "10.9.0.241/24", "10.9.0.242/24", "10.9.0.243/24", None]


def test_vnis_begin_above_the_ingress_networks_and_are_not_given_twice():
    vnis = VNIs()
    assert vnis.claim(4098, "b")
    assert not vnis.claim(4098, "c")
    assert [vnis.take("a"), vnis.take("c")] == [4099, 4100]


def test_freed_vnis_are_given_again_once_all_others_were():
    vnis = VNIs(LAST_VNI)
    assert vnis.claim(4097, "a")
    assert [vnis.take("b"), vnis.take("c")] == [LAST_VNI, 4098]
    vnis.release(4098, "c")
    assert vnis.take("d") == 4099


def test_ports():
    ports = Ports()
    assert ports.claim([PortConfig(published_port=80)], "a") is None
    assert ports.claim([PortConfig(published_port=80)], "b") == ("tcp", 80)
    assert ports.claim([PortConfig(published_port=80, publish_mode="host")], "b") is None
    assert [ports.take("tcp", "a"), ports.take("tcp", "b")] == [30000, 30001]
    ports.release([PortConfig(published_port=80)], "a")
    assert ports.claim([PortConfig(published_port=80)], "b") is None


def plane(*records: object) -> ControlPlane:
    control = ControlPlane()
    control.must(Create(record=cluster()), *(Create(record=node(f"n{number}")) for number in range(1, 3)))
    control.must(*(Create(record=record) for record in records))
    control.converge()
    return control


def network(network_id: str = "net1", **spec: object) -> Network:
    return Network(id=network_id, spec=NetworkSpec(name=f"name-{network_id}", **spec))


TINY = network(pools=(IPAMPool(subnet="10.9.0.0/29"),))


def test_a_network_a_service_and_its_tasks_get_their_addresses():
    control = plane(network(), service(replicas=2, networks=["net1"]))
    stored = control.state.networks["net1"]
    assert (stored.vni, stored.ipam) == (4097, (IPAMConfig(subnet="10.0.1.0/24", gateway="10.0.1.1"),))
    (vip,) = control.state.services["s1"].endpoint.virtual_ips
    assert vip.addr == "10.0.1.2/24"
    attachments = [each.attachments[0] for each in control.running()]
    assert [each.addresses for each in attachments] == [("10.0.1.3/24",), ("10.0.1.4/24",)]
    assert attachments[0].mac == "02:42:0a:00:01:03"


def test_each_network_has_its_own_subnet_and_vni():
    control = plane(network("net1"), network("net2"), network("net3", pools=(IPAMPool(subnet="10.0.3.0/24"),)),
                    network("net4"))  # fmt: skip
    stored = control.state.networks
    assert len({each.vni for each in stored.values()}) == 4
    assert stored["net3"].ipam[0].subnet == "10.0.3.0/24", "nobody else was given what its user asked for"
    assert len({each.ipam[0].subnet for each in stored.values()}) == 4


def test_the_ingress_network_has_the_subnet_that_is_kept_for_it():
    control = plane(network("net1"), network("net2", ingress=True))
    assert control.state.networks["net1"].ipam[0].subnet == "10.0.1.0/24"
    assert control.state.networks["net2"].ipam[0].subnet == "10.0.0.0/24"


def test_a_service_without_a_vip():
    control = plane(network(), service(networks=["net1"], endpoint=EndpointSpec(mode="dnsrr")))
    assert control.state.services["s1"].endpoint.virtual_ips == ()
    assert control.running()


def test_exhaustion_is_told_with_numbers_and_mends_itself():
    control = plane(TINY, service(replicas=6, networks=["net1"]))
    assert len(control.running()) == 4, "five addresses, one of them the service's own"
    waiting = [each for each in control.live() if each.status.state == TaskState.NEW]
    assert {each.status.err for each in waiting} == {
        "no free address on network name-net1: all 5 of 10.9.0.0/29 are in use"
    }
    stored = control.state.services["s1"]
    spec = msgspec.structs.replace(stored.spec, mode=msgspec.structs.replace(stored.spec.mode, replicas=1))
    control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))
    control.converge()
    control.must(Create(record=service("s2", networks=["net1"])))
    control.converge()
    assert control.running("s2")


def test_a_virtual_address_that_is_missing_is_told_to_the_tasks():
    control = plane(TINY, service(replicas=4, networks=["net1"]))
    control.must(Create(record=service("s2", networks=["net1"])))
    control.converge()
    assert {each.status.err for each in control.live("s2")} == {
        "no free address on network name-net1: all 5 of 10.9.0.0/29 are in use"
    }
    control.must(Delete(table="service", id="s1"))
    control.converge()
    assert control.running("s2")
    assert {each.status.err for each in control.live("s2")} == {""}


def test_an_address_is_free_only_when_its_task_has_stopped():
    control = plane(TINY, service(replicas=1, networks=["net1"], restart=RestartPolicy(delay_ns=0)))
    (old,) = control.running()
    status = control.state.nodes[old.node_id].status
    control.must(SetNodeStatus(id=old.node_id, status=msgspec.structs.replace(status, state=NodeState.DOWN)))
    control.converge()
    seen = {old.attachments[0].addresses}
    for _ in range(12):
        (now,) = control.running()
        assert now.attachments[0].addresses != old.attachments[0].addresses
        seen.add(now.attachments[0].addresses)
        control.report(now.id, TaskState.FAILED)
        control.converge()
    assert len(seen) >= 3


def test_an_attachment_gets_the_address_that_it_asks_for_and_no_other():
    control = plane(network())
    for number, address in enumerate(["10.0.1.77", "10.0.1.77"]):
        wanted = NetworkAttachmentSpec(target="net1", address=address)
        spec = TaskSpec(attachment=f"c{number}", networks=(wanted,))
        control.must(Create(record=Task(id=f"a{number}", node_id="n1", spec=spec)))
    control.settle()
    first, second = control.state.tasks["a0"], control.state.tasks["a1"]
    assert first.attachments[0].addresses == ("10.0.1.77/24",)
    assert first.status.state == TaskState.ASSIGNED
    assert second.status.err.startswith("address 10.0.1.77 is in use")
    control.must(Delete(table="task", id="a0"))
    control.settle()
    assert control.state.tasks["a1"].attachments[0].addresses == ("10.0.1.77/24",)


def test_published_ports():
    ports = (PortConfig(target_port=80, published_port=8080), PortConfig(target_port=81))
    control = plane(service(endpoint=EndpointSpec(ports=ports)))
    assert [port.published_port for port in control.state.services["s1"].endpoint.ports] == [8080, 30000]
    control.must(Create(record=service("s2", endpoint=EndpointSpec(ports=ports[1:]))))
    control.settle()
    assert control.state.services["s2"].endpoint.ports[0].published_port == 30001


def test_a_new_leader_gives_nothing_twice():
    control = plane(network(), service(replicas=3, networks=["net1"]))
    control.new_leader(ControlPlane().deciders)
    control.must(Create(record=service("s2", replicas=3, networks=["net1"])), Create(record=network("net2")))
    control.converge()
    held = [address for each in control.state.tasks.values() for address in each.attachments[0].addresses]
    held += [each.endpoint.virtual_ips[0].addr for each in control.state.services.values()]
    assert len(set(held)) == len(held) == 8
    assert control.state.networks["net2"].vni == 4098


def test_a_new_leader_does_not_give_what_was_freed_just_before():
    """Hosts may not be done with the network that had it."""
    control = plane(network("net1"), network("net2"))
    control.must(Delete(table="network", id="net2"))
    control.settle()
    control.new_leader(ControlPlane().deciders)
    control.must(Create(record=network("net3")))
    control.settle()
    assert control.state.networks["net3"].vni == 4099


def test_where_vnis_go_on_is_noted_although_the_cluster_changed_meanwhile():
    control = plane()
    allocator = next(number for number, each in enumerate(control.deciders) if each.name == "allocator")
    control.must(Create(record=network("net1")))
    assert control.decide(allocator)
    control.must(Update(record=control.state.cluster, wanted=True))
    control.land(allocator)
    control.settle()
    assert control.state.cluster.next_vni == control.state.networks["net1"].vni + 1


@pytest.mark.parametrize("target", ["host", "bridge"])
def test_a_network_that_every_node_has_needs_nothing_allocated(target):
    plane = ControlPlane()
    plane.must(Create(record=cluster()), Create(record=node("n1")))
    plane.must(Create(record=service(replicas=1, networks=[target])))
    plane.converge()
    task, = plane.running()
    assert task.attachments == ()
    assert plane.state.services["s1"].endpoint.virtual_ips == ()
