"""Ports, links, the firewall, and settings of the kernel's network. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from shoal.cli.doctor.facts import Chain, Facts, Vxlans
from shoal.cli.doctor.findings import Finding, ok, problem, warning
from shoal.cli.doctor.firewall import EVERYTHING

PORTS = {
    (2377, "tcp"): "this host cannot be a manager",
    (2378, "tcp"): "this host cannot be a manager (Raft)",
    (7946, "tcp"): "this host cannot be part of a swarm",
    (4789, "udp"): "overlay networks do not reach other hosts",
}
VXLAN_OVERHEAD = 50
LEAST_MTU = 1280  # what IPv6 asks of every link


def ports(facts: Facts) -> Iterator[Finding]:
    taken = {(port.number, port.protocol): port for port in facts.ports}
    for (number, protocol), lost in PORTS.items():
        name = f"port {number}/{protocol}"
        port = taken.get((number, protocol))
        if port is None:
            yield ok(name, "free")
        elif port.ours:
            yield ok(name, f"held by {port.holder}")
        elif protocol == "udp" and not port.holder:
            yield _held_by_kernel(name, number, facts.vxlans)
        else:
            yield problem(name, f"held by {port.holder or 'an unknown process'}", lost, "stop what holds it")


def _held_by_kernel(name: str, number: int, vxlans: Vxlans) -> Finding:
    others = [device for device, port in vxlans.others.items() if port == number]
    if vxlans.ours and not others:
        return ok(name, "held by the kernel, for Shoal's overlay networks")
    whose = f"of {', '.join(others)}" if others else "of a VXLAN device that is not Shoal's"
    return warning(name, f"held by the kernel, on behalf {whose}",
                   "two systems of overlay networks share the port; that works only with different VNIs",
                   "stop the other one (docker swarm, flannel), or choose docker swarm init --data-path-port")


def mtu(facts: Facts) -> Iterator[Finding]:
    links = facts.links
    if not links:
        yield warning("MTU", "no network interface is up", "this host reaches no other",
                      "fine for a single host or a lab on one machine")
        return
    shown = ", ".join(f"{link.name} {link.mtu}" for link in links)
    least = min(link.mtu for link in links)
    if least - VXLAN_OVERHEAD < LEAST_MTU:
        yield warning("MTU", shown, f"overlay networks get {least - VXLAN_OVERHEAD} bytes, less than the "
                      f"{LEAST_MTU} that IPv6 needs: large packets may be lost", "raise the MTU of the link")
    elif least != max(link.mtu for link in links):
        yield warning("MTU", shown, "hosts that reach each other over different links disagree on the size of packets",
                      "give them one MTU, or make networks with --opt com.docker.network.driver.mtu="
                      f"{least - VXLAN_OVERHEAD}")
    else:
        yield ok("MTU", f"{shown}: overlay networks get {least - VXLAN_OVERHEAD}")


def forwarding(facts: Facts) -> Iterator[Finding]:
    """A packet passes every chain at `forward`: an accept in Shoal's does not overrule a drop in another's."""
    if facts.chains is None:
        yield warning("firewall", "cannot be read", "a rule that drops forwarded packets would not be noticed",
                      "run shoal doctor as root, with nft installed (apt-get install nftables)")
        return
    dropping = _dropping(facts.chains)
    for chain in dropping:
        yield warning("firewall, forward", _shown(chain),
                      "packets from and to containers are dropped, unless its rules let them pass",
                      f"nft insert rule {chain.family} {chain.table} {chain.name} "
                      "iifname \"shoal*\" accept; also for \"br-*\", and both with oifname")
    if not dropping:
        yield ok("firewall, forward", "nothing drops what containers send")
    if facts.legacy_iptables:
        yield warning("firewall, iptables", f"the old iptables has rules ({', '.join(facts.legacy_iptables)})",
                      "they are not looked at here", "look with iptables-legacy -S; change to iptables-nft")


def entering(facts: Facts) -> Iterator[Finding]:
    for chain in facts.chains or ():
        if chain.hook != "input" or EVERYTHING in chain.opens or not (chain.drops_all or chain.policy == "drop"):
            continue
        closed = [f"{number}/{protocol}" for number, protocol in PORTS
                  if not {f"{protocol}/{number}", f"{protocol}/{EVERYTHING}"} & chain.opens]
        if not closed:
            yield ok("firewall, input", f"{_shown(chain)}, with Shoal's ports open")
            continue
        doubt = " (some of its rules cannot be read here)" if chain.opaque else ""
        yield warning("firewall, input", f"{_shown(chain)} does not open {', '.join(closed)}{doubt}",
                      "other hosts of the swarm do not reach this one",
                      f"nft insert rule {chain.family} {chain.table} {chain.name} "
                      "tcp dport { 2377, 2378, 7946 } accept; the same for udp dport 4789")


def settings(facts: Facts) -> Iterator[Finding]:
    sysctls = facts.sysctls
    forward = sysctls.get("net.ipv4.ip_forward", "")
    if forward == "1":
        yield ok("ip_forward", "on")
    else:
        yield ok("ip_forward", "off; shoald switches it on")
    on_bridges = sysctls.get("net.bridge.bridge-nf-call-iptables") == "1"
    if on_bridges and (facts.chains is None or _dropping(facts.chains)):
        yield warning("br_netfilter", "frames on bridges pass the firewall",
                      "rules that drop forwarded packets also drop them between containers of one network",
                      "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless another system needs it (Kubernetes)")
    else:
        yield ok("br_netfilter", "on; nothing drops" if on_bridges else "frames on bridges are left alone")
    if sysctls.get("net.ipv4.conf.all.rp_filter") == "1":
        yield warning("rp_filter", "strict", "replies that come back over another link are dropped",
                      "on a host with several links: sysctl -w net.ipv4.conf.all.rp_filter=2")
    else:
        yield ok("rp_filter", {"2": "loose"}.get(sysctls.get("net.ipv4.conf.all.rp_filter", ""), "off"))


def _dropping(chains: Iterable[Chain]) -> list[Chain]:
    return [chain for chain in chains if chain.hook == "forward" and (
        chain.drops_all or (chain.policy == "drop" and EVERYTHING not in chain.opens))]


def _shown(chain: Chain) -> str:
    how = "drops by its policy" if chain.policy == "drop" else "ends with a drop"
    return f"{chain.family} {chain.table} {chain.name} {how}"


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (ports, mtu, forwarding, entering, settings)
