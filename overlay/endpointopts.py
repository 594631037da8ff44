"""What an endpoint's driver options ask for: the name of its link, and sysctls of that link. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shoal.api.errors import InvalidArgument

SYSCTLS = "com.docker.network.endpoint.sysctls"
LINK_NAME = "com.docker.network.endpoint.ifname"

_LINK = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]{0,14}")
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(\w+)\.(?:IFNAME|ifname)\.(\w+)=([^,=]*)")


def link_name(options: Mapping[str, str]) -> str:
    """The name that the link is to have in the sandbox; empty: ours to choose. Raises InvalidArgument."""
    name = options.get(LINK_NAME, "")
    if name and (not _LINK.fullmatch(name) or name == "lo"):
        raise InvalidArgument(f"invalid interface name {name!r} in {LINK_NAME}: at most 15 letters, digits, '-', '_'")
    return name


def sysctls(options: Mapping[str, str], link: str) -> dict[str, str]:
    """The sysctls of `link`, from "net.ipv4.conf.IFNAME.log_martians=1,…". Raises InvalidArgument."""
    wanted = {}
    for text in filter(None, options.get(SYSCTLS, "").split(",")):
        found = _SYSCTL.fullmatch(text)
        if found is None:
            raise InvalidArgument(f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as "
                                  "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'")
        wanted[f"net.{found[1]}.{found[2]}.{link}.{found[3]}"] = found[4]
    return wanted


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument."""
    link_name(options)
    sysctls(options, "eth0")
