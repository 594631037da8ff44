"""The networks of this host alone: which there are, which may be made or removed.

Records and rules only; bridges are made by `networks.py` through the plumber.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from shoal.api.errors import Conflict, InvalidArgument, PermissionDenied
from shoal.api.ids import new_container_id, resolve
from shoal.overlay import localspecs
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

_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")


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
            self._keep(self._new(LocalNetworkSpec(name=BRIDGE), DEFAULT_LINK, used))
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
        if not _NAME.fullmatch(spec.name) or not spec.name.strip():
            raise InvalidArgument(f"invalid network name {spec.name!r}: give it letters, and no slash")
        if spec.name in PREDEFINED or spec.name == "default":
            raise PermissionDenied(f"operation is not permitted on predefined {spec.name} network")
        if self.named(spec.name):
            raise Conflict(f"network with name {spec.name} already exists")
        network = self._new(spec, "", used)
        self._keep(network)
        return network

    def mark(self, network: LocalNetwork) -> None:
        """Keep what was found out about a network while it was made."""
        self._keep(network)

    def gwbridge(self, used: Iterable[str]) -> LocalNetwork:
        """The bridge that takes overlay sandboxes to the outside; made when first needed."""
        if found := self.named(GWBRIDGE):
            return found
        spec = LocalNetworkSpec(name=GWBRIDGE, options={"com.docker.network.bridge.enable_icc": "false"})
        network = self._new(spec, GWBRIDGE_LINK, used)
        self._keep(network)
        return network

    def remove(self, network: LocalNetwork) -> None:
        """Nobody finds it any more; its record stays until `forget`: a crash in between brings it back whole."""
        if network.name in PREDEFINED and network.name != GWBRIDGE:
            raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed")
        del self.by_id[network.id]

    def forget(self, network: LocalNetwork) -> None:
        """Its link is gone, too."""
        self._folder.drop(network.id)

    def bridges(self) -> list[LocalNetwork]:
        return [network for network in self.by_id.values() if network.driver == "bridge"]

    def parented(self) -> list[LocalNetwork]:
        return [network for network in self.by_id.values() if network.driver in localspecs.PARENTED]

    def parent_is_shared(self, network: LocalNetwork) -> bool:
        """Whether another network stands on its parent."""
        return any(other.link == network.link and other.id != network.id for other in self.parented())

    def shares_own_parent(self, network: LocalNetwork) -> bool:
        """Whether its parent was made for another network."""
        return any(other.link == network.link and other.id != network.id and not other.foreign
                   for other in self.parented() if network.driver in localspecs.PARENTED)

    def _keep(self, network: LocalNetwork) -> None:
        self._folder.put(network.id, network)
        self.by_id[network.id] = network

    def _new(self, spec: LocalNetworkSpec, link: str, used: Iterable[str]) -> LocalNetwork:
        network = localspecs.build(spec, network_id=new_container_id(), created=_now(), link=link, used=used,
                                   others=self.by_id.values())
        if network.driver == "bridge" and any(other.link == network.link for other in self.by_id.values()):
            raise Conflict(f"bridge name {network.link} is used by another network")
        return network


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
