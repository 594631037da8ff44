"""Bridges of this host in the kernel. Runs on the network thread only."""

from __future__ import annotations

from shoal.api.errors import NotImplementedHere
from shoal.overlay import kernel, netlink
from shoal.overlay.records import LocalNetwork
from shoal.overlay.rtnetlink import Rtnetlink


def ensure(rtnl: Rtnetlink, network: LocalNetwork) -> bool:
    """The bridge of `network`, up, with its gateway addresses, and forwarding on. Idempotent.

    Returns whether it had to be made. Leaves none of its own after an error.
    """
    if rtnl.index_of(network.link):
        _configure(rtnl, network)
        return False
    rtnl.send([netlink.new_bridge(network.link, mtu=network.mtu)])
    try:
        _configure(rtnl, network)
    except BaseException:
        rtnl.send([netlink.del_link(network.link)])
        raise
    return True


def _configure(rtnl: Rtnetlink, network: LocalNetwork) -> None:
    link = network.link
    index = rtnl.index_of(link)
    kernel.write_sysctl("net.ipv4.ip_forward", "1")
    kernel.write_sysctl(f"net.ipv4.conf.{link}.route_localnet", "1")
    messages = [netlink.set_link(index=index, up=True),
                netlink.new_address(index, f"{network.gateway}/{_length(network.subnet)}")]
    if network.subnet6:
        if not kernel.has_ipv6():
            raise NotImplementedHere(f"network {network.name} cannot have IPv6: this host's kernel has none")
        for name, value in (("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")):
            kernel.write_sysctl(f"net.ipv6.conf.{link}.{name}", value)
        kernel.write_sysctl("net.ipv6.conf.all.forwarding", "1")
        messages.append(netlink.new_address(index, f"{network.gateway6}/{_length(network.subnet6)}"))
    else:
        kernel.without_ipv6(link)
    rtnl.send(messages)


def _length(subnet: str) -> str:
    return subnet.partition("/")[2]
