"""macvlan networks: containers directly on a link of the host's."""

from __future__ import annotations

import pytest

from shoal.api.sandbox import EndpointRequest, PublishedPort
from shoal.overlay import kernel
from shoal.overlay.netlink import new_dummy, new_ipvlan, new_vlan
from shoal.overlay.records import LocalNetworkSpec
from shoal.overlay.rtnetlink import NetlinkError, Rtnetlink

from .conftest import Echo, Host, Refused, cid, greet

pytestmark = pytest.mark.root


def lan(name: str = "lan", driver: str = "macvlan", **more: object) -> LocalNetworkSpec:
    given = {"subnet": "10.50.0.0/24", "options": {"parent": "up0"}, **more}
    return LocalNetworkSpec(name=name, driver=driver, **given)  # type: ignore[arg-type]


def test_containers_are_on_the_parents_network(hosts) -> None:
    """The other host stands for a machine of that network; the containers' own host does not reach them."""
    one, two = hosts(2)
    with kernel.Links(two.netns) as links:
        links.add_address("up0", "10.50.0.1/24")
    with kernel.Links(one.netns) as links:
        links.add_bridge("eth0")  # most hosts have a link of the name that sandboxes have
    one.call("create_network", spec=lan(gateway="10.50.0.1", ip_range="10.50.0.128/25",
                                        reserved={"printer": "10.50.0.129"}))
    a = one.up("a", EndpointRequest(network="lan"), ports=(PublishedPort(container_port=80, host_port=8080),))
    b = one.up("b", EndpointRequest(network="lan", address="10.50.0.7", mac="02:42:00:00:00:07"))
    assert [end.endpoints[0].address for end in (a, b)] == ["10.50.0.128", "10.50.0.7"]
    assert a.endpoints[0].gateway == "10.50.0.1"
    assert a.ports == ()  # as Docker has it: what is on the network itself needs no publishing
    assert kernel.dump_links(b.netns)["eth0"].mac == "02:42:00:00:00:07"
    servers = [Echo(a.netns, 80, "a"), Echo(two.netns, 81, "two")]
    try:
        assert greet(two.netns, "10.50.0.128", 80) == "a 10.50.0.1"
        assert greet(b.netns, "10.50.0.128", 80) == "a 10.50.0.7"
        assert greet(b.netns, two.address, 81) == "two 10.50.0.7"  # through the router that was named
        with pytest.raises(OSError):
            greet(one.netns, "10.50.0.128", 80)
    finally:
        for server in servers:
            server.close()
    c = one.up("c", EndpointRequest(network="lan"))
    assert c.endpoints[0].address == "10.50.0.130"  # what is reserved is left out
    for name in "abc":
        one.down(name)
    one.call("remove_network", reference="lan")
    assert "up0" in one.links()  # the parent is the user's


def test_without_a_parent_it_leads_nowhere(hosts) -> None:
    (host,) = hosts(1)
    made = host.call("create_network", spec=lan("alone", options={}))
    parent = f"dm-{made['id'][:12]}"
    assert parent in host.links()
    a, b = host.up("a", EndpointRequest(network="alone")), host.up("b", EndpointRequest(network="alone"))
    assert a.endpoints[0].gateway == ""
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(b.netns, a.endpoints[0].address, 80) == f"a {b.endpoints[0].address}"
    finally:
        server.close()
    host.kill()
    host.start()
    assert parent in host.links()
    c = host.up("c", EndpointRequest(network="alone"))
    assert c.endpoints[0].address == "10.50.0.3"
    for name in "abc":
        host.down(name)
    host.call("remove_network", reference="alone")
    assert parent not in host.links()


def test_a_bridge_and_macvlan_and_back(hosts) -> None:
    (host,) = hosts(1)
    host.call("create_network", spec=lan(gateway="10.50.0.1"))
    a = host.up("a", ports=(PublishedPort(container_port=80, host_port=8080),))
    server = Echo(a.netns, 80, "a")
    try:
        host.call("connect", container_id=cid("a"), endpoint=EndpointRequest(network="lan", gw_priority=1))
        assert set(kernel.dump_links(a.netns)) >= {"eth0", "eth1"}
        with pytest.raises(OSError):
            greet(host.netns, "127.0.0.1", 8080)  # what leads outside has no published ports
        host.call("disconnect", container_id=cid("a"), network="lan")
        assert greet(host.netns, "127.0.0.1", 8080).startswith("a ")
    finally:
        server.close()


@pytest.mark.parametrize("parent", ["nothing", "nothing.10", "up0.5000"])
def test_parents_that_are_not_there(hosts, parent: str) -> None:
    (host,) = hosts(1)
    with pytest.raises(Refused) as refused:
        host.call("create_network", spec=lan(options={"parent": parent}))
    assert refused.value.status == 400
    assert [network["name"] for network in host.call("networks")] == ["bridge", "host", "none"]


def test_a_vlan_is_made_for_its_first_network_and_goes_with_its_last(hosts) -> None:
    (host,) = hosts(1)
    _needs(host, "vlan")
    for name, subnet in (("one", "10.50.0.0/24"), ("two", "10.51.0.0/24")):
        host.call("create_network", spec=lan(name, subnet=subnet, options={"parent": "up0.10"}))
    a, b = host.up("a", EndpointRequest(network="one")), host.up("b", EndpointRequest(network="one"))
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(b.netns, a.endpoints[0].address, 80).startswith("a ")
    finally:
        server.close()
    host.down("a")
    host.down("b")
    host.call("remove_network", reference="one")
    assert "up0.10" in host.links()
    host.call("remove_network", reference="two")
    assert "up0.10" not in host.links()


def test_ipvlan(hosts) -> None:
    (host,) = hosts(1)
    _needs(host, "ipvlan")
    host.call("create_network", spec=lan(driver="ipvlan"))
    a, b = host.up("a", EndpointRequest(network="lan")), host.up("b", EndpointRequest(network="lan"))
    assert a.endpoints[0].mac == ""
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(b.netns, a.endpoints[0].address, 80).startswith("a ")
    finally:
        server.close()


def _needs(host: Host, kind: str) -> None:
    """Skip where the kernel has no such links."""
    with kernel.inside(host.netns), Rtnetlink() as rtnl:
        parent = rtnl.index_of("up0")
        own = kernel.open_namespace()
        messages = {"vlan": new_vlan("probe", parent=parent, vlan=9), "dummy": new_dummy("probe"),
                    "ipvlan": new_ipvlan("probe", parent=parent, namespace_fd=own)}
        try:
            rtnl.send([messages[kind]])
        except NetlinkError as error:
            pytest.skip(f"this kernel has no {kind}: {error}")
    with kernel.Links(host.netns) as links:
        links.delete("probe")
