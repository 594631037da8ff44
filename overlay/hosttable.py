"""The rules in the host's own namespace, as one text. Pure.

    post     source translation: outgoing traffic of bridges, hairpin, and
             connections to a published port from the host's loopback
    pre,out  destination translation of published ports, looked up in two maps
    raw      nothing from a link may pretend to be loopback; VXLAN is not tracked
    refuse   nothing is led from ::1 to a container: better an error at once than a hanging client
    forward  bridges are kept apart from each other, internal ones from everything

A published port is one map element: it comes and goes without touching a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shoal.api.sandbox import PublishedPort
from shoal.overlay.nft import EMPTY, TABLE
from shoal.overlay.records import LocalNetwork

ANY = ("", "0.0.0.0", "::")  # noqa: S104 - what a client writes for "every address"


def publish(ports: Iterable[PublishedPort], address: str, address6: str = "") -> str:
    """Commands that lead the published `ports` to the container at these addresses."""
    return "".join(f"add element inet {TABLE} {element}\n" for port in ports
                   for element in _elements(port, target(port, address, address6)))


def unpublish(ports: Iterable[PublishedPort], address: str, address6: str = "") -> str:
    return "".join(f"delete element inet {TABLE} {element}\n" for port in ports
                   for element in _elements(port, target(port, address, address6)))


def target(port: PublishedPort, address: str, address6: str) -> str:
    """Which of a container's addresses a published port leads to: one of the port's own family."""
    return address6 if address6 and ":" in port.host_ip else address


def dropping_chains(listing: str) -> list[str]:
    """The forward chains with policy drop in the output of `list chains`, each as "family table chain"."""
    table, chain, found = "", "", []
    for line in listing.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif "hook forward" in line and "policy drop" in line and table != f"inet {TABLE}":
            found.append(f"{table} {chain}")
    return found


def _elements(port: PublishedPort, address: str) -> list[str]:
    key = f"{port.protocol} . {port.host_port}"
    six = "6" if ":" in address else ""
    to = f"{address} . {port.container_port}"
    if port.host_ip not in ANY:
        return [f"address_ports{six} {{ {port.host_ip} . {key} : {to} }}"]
    return [f"ports{six} {{ {key} : {to} }}", *([f"loop6 {{ {key} }}"] if six else [])]


def table(
    networks: Sequence[LocalNetwork], published: Iterable[tuple[PublishedPort, str]], data_port: int = 4789,
) -> str:
    """The whole table, replacing what stands there, as one transaction.

    `published` are pairs of a port and the address of the container behind it.
    """
    bridges = [network for network in networks if network.link and network.driver == "bridge"]
    post, forward = [], []
    for network in bridges:
        link = f'"{network.link}"'
        subnets = [f"ip saddr {network.subnet}"] + ([f"ip6 saddr {network.subnet6}"] if network.subnet6 else [])
        if network.masquerade and not network.internal:
            post += [f"{subnet} oifname != {link} masquerade" for subnet in subnets]
        post.append(f"oifname {link} ip saddr 127.0.0.0/8 masquerade")
        # No iifname here: a packet that br_netfilter translates on the bridge leaves without one.
        post += [f"oifname {link} {subnet} ct status dnat masquerade" for subnet in subnets]
        if network.internal:
            forward.append(f"iifname {link} oifname != {link} drop")
            forward.append(f"oifname {link} iifname != {link} drop")
        forward.append(f"iifname {link} oifname {link} {'accept' if network.icc else 'drop'}")
    elements = "".join(f"add element inet {TABLE} {element}\n" for port, address in published
                       for element in _elements(port, address))
    links = ", ".join(f'"{network.link}"' for network in bridges)
    newline = "\n    "
    return f"""{EMPTY}table inet {TABLE} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map address_ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  map address_ports6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  set loop6 {{ type inet_proto . inet_service; }}
  set bridges {{ type ifname; {f"elements = {{ {links} }};" if links else ""} }}
  chain pre {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
    dnat ip to ip daddr . meta l4proto . th dport map @address_ports
    fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @address_ports6
  }}
  chain out {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
    dnat ip to ip daddr . meta l4proto . th dport map @address_ports
    ip6 daddr ::1 accept
    fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @address_ports6
  }}
  chain refuse {{
    type filter hook output priority 0; policy accept;
    ip6 daddr ::1 meta l4proto . th dport @loop6 meta l4proto tcp reject with tcp reset
    ip6 daddr ::1 meta l4proto . th dport @loop6 reject
  }}
  chain post {{
    type nat hook postrouting priority 100; policy accept;
    {newline.join(post)}
  }}
  chain raw {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    udp dport {data_port} notrack
  }}
  chain rawout {{
    type filter hook output priority -300; policy accept;
    udp dport {data_port} notrack
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    ct state established,related accept
    {newline.join(line for line in forward if " != " in line)}
    ct status dnat accept
    {newline.join(line for line in forward if " != " not in line)}
    iifname @bridges oifname @bridges drop
  }}
}}
{elements}"""
