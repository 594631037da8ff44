"""The networks of this host alone: which there are, which may be made or removed.

Records and rules only; bridges are made by `networks.py` through the plumber.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

from shoal.api.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from shoal.api.ids import new_container_id, resolve
from shoal.overlay import ipam
from shoal.overlay.records import (
    BRIDGE,
    DEFAULT_LINK,
    GWBRIDGE,
    GWBRIDGE_LINK,
    PREDEFINED,
    LocalNetwork,
    LocalNetworkSpec,
)
from shoal.overlay.storage import Folder

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
_OPTION = "com.docker.network."
DRIVERS = ("bridge", "host", "null")


def _flag(options: dict[str, str], name: str, default: bool) -> bool:
    text = options.get(name, "")
    if not text:
        return default
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid value {text!r} of option {name}: use "true" or "false"')


class LocalNetworks:
    """Records of the host's own networks, kept under the data root."""

    def __init__(self, folder: Path) -> None:
        self._folder: Folder[LocalNetwork] = Folder(folder, LocalNetwork, durable=True)
        self.by_id: dict[str, LocalNetwork] = {}

    def load(self, used: Iterable[str]) -> None:
        """Read the records and add the predefined networks that are missing. `used`: the host's subnets."""
        self.by_id = {network.id: network for network in self._folder.load().values()}
        names = {network.name for network in self.by_id.values()}
        if BRIDGE not in names:
            self._keep(self._bridge(LocalNetworkSpec(name=BRIDGE), DEFAULT_LINK, used))
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                self._keep(LocalNetwork(id=new_container_id(), name=name, driver=driver, created=_now()))

    def resolve(self, reference: str) -> LocalNetwork:
        """By id, name or unambiguous prefix of an id. Raises NotFound, InvalidArgument."""
        found = resolve(reference, "network", ((network.id, network.name) for network in self.by_id.values()))
        return self.by_id[found]

    def named(self, name: str) -> LocalNetwork | None:
        return next((network for network in self.by_id.values() if network.name == name), None)

    def create(self, spec: LocalNetworkSpec, used: Iterable[str]) -> LocalNetwork:
        """Keep a new network. `used`: the host's subnets, avoided when one is chosen.

        Raises InvalidArgument, PermissionDenied, Conflict, NotFound (no such driver).
        """
        if not spec.name or not _NAME.match(spec.name):
            raise InvalidArgument(f"invalid network name {spec.name!r}: use letters, digits, '_', '.', '-'")
        if spec.name in PREDEFINED or spec.name == "default":
            raise PermissionDenied(f"operation is not permitted on predefined {spec.name} network")
        if self.named(spec.name):
            raise Conflict(f"network with name {spec.name} already exists")
        if spec.driver in ("host", "null"):
            raise PermissionDenied(f'only one instance of "{spec.driver}" network is allowed')
        if spec.driver != "bridge":
            raise NotFound(f"could not find a network driver named {spec.driver}: this host has bridge, and overlay "
                           "in a swarm")
        network = self._bridge(spec, "", used)
        self._keep(network)
        return network

    def gwbridge(self, used: Iterable[str]) -> LocalNetwork:
        """The bridge that takes overlay sandboxes to the outside; made when first needed."""
        if found := self.named(GWBRIDGE):
            return found
        spec = LocalNetworkSpec(name=GWBRIDGE, options={f"{_OPTION}bridge.enable_icc": "false"})
        network = self._bridge(spec, GWBRIDGE_LINK, used)
        self._keep(network)
        return network

    def remove(self, network: LocalNetwork) -> None:
        if network.name in PREDEFINED and network.name != GWBRIDGE:
            raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed")
        del self.by_id[network.id]
        self._folder.drop(network.id)

    def bridges(self) -> list[LocalNetwork]:
        return [network for network in self.by_id.values() if network.driver == "bridge"]

    def _keep(self, network: LocalNetwork) -> None:
        self._folder.put(network.id, network)
        self.by_id[network.id] = network

    def _bridge(self, spec: LocalNetworkSpec, link: str, used: Iterable[str]) -> LocalNetwork:
        others = [(network.subnet, network.name) for network in self.by_id.values() if network.subnet]
        if spec.subnet:
            subnet = str(ipam.check_subnet(spec.subnet, others))
        else:
            subnet = ipam.choose_subnet([*used, *(subnet for subnet, _ in others)])
        gateway = spec.gateway or ipam.first_host(subnet)
        if ipam.parse_address(gateway, "gateway") not in IPv4Network(subnet):
            raise InvalidArgument(f"no matching subnet for gateway {gateway}")
        if spec.ip_range and not ipam.parse_subnet(spec.ip_range).subnet_of(IPv4Network(subnet)):
            raise InvalidArgument(f"no matching subnet for range {spec.ip_range}")
        mtu = spec.options.get(f"{_OPTION}driver.mtu", "1500")
        if not mtu.isdigit() or not 68 <= int(mtu) <= 65535:
            raise InvalidArgument(f"invalid MTU {mtu}: use 68 to 65535")
        network_id = new_container_id()
        link = link or spec.options.get(f"{_OPTION}bridge.name", "") or f"br-{network_id[:12]}"
        if len(link) > 15 or "/" in link:
            raise InvalidArgument(f"invalid bridge name {link}: at most 15 characters")
        if any(network.link == link for network in self.by_id.values()):
            raise Conflict(f"bridge name {link} is used by another network")
        return LocalNetwork(
            id=network_id, name=spec.name, driver="bridge", created=_now(), subnet=subnet, gateway=gateway,
            ip_range=spec.ip_range, internal=spec.internal, attachable=spec.attachable, ipv6=spec.ipv6,
            options=spec.options, labels=spec.labels, link=link, mtu=int(mtu),
            icc=_flag(spec.options, f"{_OPTION}bridge.enable_icc", True),
            masquerade=_flag(spec.options, f"{_OPTION}bridge.enable_ip_masquerade", True),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
