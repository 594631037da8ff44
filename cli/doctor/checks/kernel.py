"""The kernel: its version, and the parts of it that containers and networks are made of. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from shoal.cli.doctor.facts import Facts, Kernel
from shoal.cli.doctor.findings import Finding, ok, problem, warning

OLDEST = (5, 3)  # pidfd_open(2)
OLDEST_TESTED = (6, 1)
NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "cgroup")
OTHER_KERNEL = "boot a distribution's stock kernel, or build one with {}"


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the kernel. `probe`: its name in `Kernel.tried`. `lost`: what does not work without it."""

    name: str
    probe: str
    modules: tuple[str, ...]
    config: tuple[str, ...]
    lost: str
    needed: bool = True
    filesystem: str = ""


FEATURES = (
    Feature(name="overlayfs", probe="", modules=("overlay",), config=("CONFIG_OVERLAY_FS",), filesystem="overlay",
            lost="no container can have a root file system"),
    Feature(name="bridge", probe="bridge", modules=("bridge",), config=("CONFIG_BRIDGE",),
            lost="no bridge networks, so no container has a network"),
    Feature(name="veth", probe="veth", modules=("veth",), config=("CONFIG_VETH",),
            lost="no container can be joined to a bridge"),
    Feature(name="vxlan", probe="vxlan", modules=("vxlan",), config=("CONFIG_VXLAN",),
            lost="no overlay networks between hosts"),
    Feature(name="macvlan", probe="macvlan", modules=("macvlan",), config=("CONFIG_MACVLAN",),
            lost="no endpoints on overlay networks"),
    Feature(name="nftables", probe="nftables", modules=("nf_tables", "nf_nat", "nft_chain_nat"),
            config=("CONFIG_NF_TABLES", "CONFIG_NFT_NAT"),
            lost="no published ports, no virtual addresses of services, no way out of bridge networks"),
    Feature(name="load balancing", probe="numgen", modules=("nft_numgen",), config=("CONFIG_NFT_NUMGEN",),
            lost="the virtual address of a service reaches none of its tasks"),
    Feature(name="connection tracking", probe="conntrack", modules=("nf_conntrack", "nft_ct"),
            config=("CONFIG_NF_CONNTRACK", "CONFIG_NFT_CT"), lost="nothing can be translated: no published ports"),
    Feature(name="IPsec ESP", probe="esp", modules=("esp4", "xfrm_user"),
            config=("CONFIG_INET_ESP", "CONFIG_XFRM_USER", "CONFIG_CRYPTO_GCM"), needed=False,
            lost="overlay networks cannot be encrypted where WireGuard is missing too"),
    Feature(name="WireGuard", probe="wireguard", modules=("wireguard",), config=("CONFIG_WIREGUARD",),
            needed=False, lost="encrypted overlay networks have to use IPsec ESP"),
    Feature(name="ipvlan", probe="ipvlan", modules=("ipvlan",), config=("CONFIG_IPVLAN",),
            needed=False, lost="no networks with the driver ipvlan"),
)


def version(facts: Facts) -> Iterator[Finding]:
    release = facts.kernel.release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        yield warning("kernel", release or "unknown", "its version cannot be told")
        return
    found = int(numbers[1]), int(numbers[2])
    if found < OLDEST:
        yield problem("kernel", release, "pidfds are missing, by which containers are watched",
                      f"Linux {_dotted(OLDEST)} or newer is needed, {_dotted(OLDEST_TESTED)} advised")
    elif found < OLDEST_TESTED:
        yield warning("kernel", release, f"Shoal is tested from Linux {_dotted(OLDEST_TESTED)} on")
    else:
        yield ok("kernel", release)


def features(facts: Facts) -> Iterator[Finding]:
    for feature in FEATURES:
        there, how = evidence(feature, facts.kernel)
        config = " and ".join(f"{name}=m" for name in feature.config)
        if there:
            yield ok(feature.name, how)
        elif there is None:
            yield warning(feature.name, how, f"if it is missing: {feature.lost}", "run shoal doctor as root: it tries")
        elif feature.needed:
            yield problem(feature.name, how, feature.lost, OTHER_KERNEL.format(config))
        else:
            yield warning(feature.name, how, feature.lost, OTHER_KERNEL.format(config))


def evidence(feature: Feature, kernel: Kernel) -> tuple[bool | None, str]:
    """Whether it is there, None where nothing tells, and how that is known. What was tried tells most."""
    tried = kernel.tried.get(feature.probe)
    if tried is not None:
        return not tried, tried or "works"
    if feature.filesystem and feature.filesystem in kernel.filesystems:
        return True, "there"
    states = [kernel.modules[name] for name in feature.modules if name in kernel.modules]
    if len(states) == len(feature.modules):
        return True, states[0]
    settings = [kernel.config[name] for name in feature.config if name in kernel.config]
    if len(settings) == len(feature.config) and not kernel.modules_known:
        return True, "built in" if settings[0] == "y" else "configured as a module"
    if kernel.modules_known or kernel.config:
        return False, "not in this kernel"
    return None, "unknown: neither a list of modules nor a configuration is there"


def isolation(facts: Facts) -> Iterator[Finding]:
    missing = [name for name in NAMESPACES if name not in facts.kernel.namespaces]
    if missing:
        yield problem("namespaces", f"missing: {', '.join(missing)}", "containers cannot be kept apart",
                      OTHER_KERNEL.format("CONFIG_NAMESPACES=y and all below it"))
    else:
        yield ok("namespaces", ", ".join(NAMESPACES))
    if "errno" in facts.kernel.seccomp_actions:
        yield ok("seccomp", "filters")
    else:
        yield problem("seccomp", "no filters", "no container starts with the default profile",
                      OTHER_KERNEL.format("CONFIG_SECCOMP_FILTER=y"))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (version, features, isolation)
