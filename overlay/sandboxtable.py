"""The rules inside one sandbox: its resolver and the VIPs of its networks. Pure.

    out     127.0.0.11:53 leads to the resolver's port; a VIP leads to one of its backends
    refuse  a VIP without backends refuses at once, where a client would else hang

A service is one chain and one map element, so that a change of one touches
nothing of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

import msgspec

from shoal.overlay.files import RESOLVER
from shoal.overlay.nft import EMPTY, TABLE


class SetService(msgspec.Struct, frozen=True):
    """Lead `vip` to `backends`, one of them at random for each connection; to nowhere if there is none.

    `was` is what stands now: None if nothing does.
    """

    vip: str
    backends: tuple[str, ...]
    was: tuple[str, ...] | None = None


class DropService(msgspec.Struct, frozen=True):
    """Forget `vip`, which had backends `was`."""

    vip: str
    was: tuple[str, ...]


ServiceOp = SetService | DropService


def _chain(vip: str) -> str:
    return f"s{int(IPv4Address(vip)):08x}"


def _rule(vip: str, backends: tuple[str, ...]) -> str:
    if len(backends) == 1:
        target = backends[0]
    else:
        choices = ", ".join(f"{number} : {backend}" for number, backend in enumerate(backends))
        target = f"numgen random mod {len(backends)} map {{ {choices} }}"
    return f"add rule inet {TABLE} {_chain(vip)} dnat ip to {target}\n"


def commands(ops: Iterable[ServiceOp]) -> str:
    """One transaction that carries out `ops`."""
    lines = []
    for op in ops:
        chain = _chain(op.vip)
        if isinstance(op, DropService):
            if op.was:
                lines.append(f"delete element inet {TABLE} vips {{ {op.vip} }}\n"
                             f"flush chain inet {TABLE} {chain}\ndelete chain inet {TABLE} {chain}\n")
            else:
                lines.append(f"delete element inet {TABLE} dead {{ {op.vip} }}\n")
            continue
        if op.backends:
            if op.was:
                lines.append(f"flush chain inet {TABLE} {chain}\n" + _rule(op.vip, op.backends))
            else:
                if op.was is not None:
                    lines.append(f"delete element inet {TABLE} dead {{ {op.vip} }}\n")
                lines.append(f"add chain inet {TABLE} {chain}\n" + _rule(op.vip, op.backends)
                             + f"add element inet {TABLE} vips {{ {op.vip} : goto {chain} }}\n")
        else:
            if op.was:
                lines.append(f"delete element inet {TABLE} vips {{ {op.vip} }}\n"
                             f"flush chain inet {TABLE} {chain}\ndelete chain inet {TABLE} {chain}\n")
            lines.append(f"add element inet {TABLE} dead {{ {op.vip} }}\n")
    return "".join(lines)


def table(dns_port: int, services: Mapping[str, tuple[str, ...]]) -> str:
    """The whole table, replacing what stands there, as one transaction."""
    return EMPTY + rules(dns_port, services)


def rules(dns_port: int, services: Mapping[str, tuple[str, ...]]) -> str:
    """The whole table, for a namespace that has none yet."""
    return f"""table inet {TABLE} {{
  map vips {{ type ipv4_addr : verdict; }}
  set dead {{ type ipv4_addr; }}
  chain out {{
    type nat hook output priority -100; policy accept;
    ip daddr {RESOLVER} udp dport 53 dnat ip to {RESOLVER}:{dns_port}
    ip daddr {RESOLVER} tcp dport 53 dnat ip to {RESOLVER}:{dns_port}
    ip daddr vmap @vips
  }}
  chain refuse {{
    type filter hook output priority -150; policy accept;
    ip daddr @dead meta l4proto tcp reject with tcp reset
    ip daddr @dead reject
  }}
}}
""" + commands(SetService(vip, backends) for vip, backends in services.items())
