"""How a host enters a swarm, what it keeps of it, and what its daemon asks its manager process.

Data only. Bodies on the managers' port and on the manager's private socket are msgpack of
these structs, unless a route speaks the Docker API's JSON.
"""

from __future__ import annotations

import msgspec

from shoal.api.messages import ManagerPeer
from shoal.api.specs import ClusterSpec
from shoal.api.states import Availability, Role

MANAGER_PORT = 2377
"""Where a manager serves that was told no other port. Its Raft listens at the port above."""
MANAGER_PORTS = range(1, 65535)

HOST_PORT = 7946
VXLAN_PORT = 4789


def at_port(address: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs. Pure."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this host is in its swarm: `<data>/swarm/identity.json`.

    Beside it lie `node.key`, `node.crt` (PEM) and `ca.crt` (PEM, may hold several).
    The certificate's CN is `node_id`, its OU `swarm-manager` or `swarm-worker`, its O `cluster_id`.
    """

    node_id: str
    cluster_id: str
    role: Role
    advertise_addr: str  # IP address at which other hosts reach this one
    advertise_port: int = MANAGER_PORT  # and the port, where it is a manager
    listen_addr: str = "0.0.0.0"  # noqa: S104 - Docker's default: every address of the host
    listen_port: int = MANAGER_PORT
    data_path_addr: str = ""  # empty: advertise_addr
    data_path_port: int = VXLAN_PORT
    managers: tuple[ManagerPeer, ...] = ()  # last known
    raft_id: str = ""  # managers only; fresh for each join

    @property
    def manager_addr(self) -> str:
        """Where other hosts reach its manager."""
        return at_port(self.advertise_addr, self.advertise_port)


class InitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Standard input (JSON) of `python -m shoal.manager init`."""

    advertise_addr: str
    listen_addr: str
    advertise_port: int = MANAGER_PORT
    listen_port: int = MANAGER_PORT
    data_path_addr: str = ""
    data_path_port: int = VXLAN_PORT
    availability: Availability = Availability.ACTIVE
    hostname: str = ""
    spec: ClusterSpec = ClusterSpec()
    force_new_cluster: bool = False


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /ca/v1/join` (no client certificate, a token) and `POST /ca/v1/renew` (client certificate, no token)."""

    csr_pem: str
    token: str = ""
    node_id: str = ""  # renewals of an expired certificate name the node that they are for
    hostname: str = ""
    availability: Availability = Availability.ACTIVE


class CertificateReply(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    cluster_id: str
    role: Role
    certificate_pem: str
    root_ca_pem: str
    managers: tuple[ManagerPeer, ...] = ()


class RaftMember(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /raft/v1/members` (manager certificate): add me. The reply holds all members."""

    raft_id: str
    node_id: str
    addr: str  # host:port of its Raft
    manager_addr: str  # host:port where it serves


class ManagerInfoReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /internal/info` on the manager's private socket."""

    pid: int
    node_id: str
    cluster_id: str
    is_leader: bool
    is_ready: bool  # it knows a leader and has caught up
    leader_node_id: str = ""
    managers: int = 0
    nodes: int = 0
    remote_managers: tuple[ManagerPeer, ...] = ()


class SwarmEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A line (JSON) of `/internal/events` on the manager's private socket: what `docker events` shows of the swarm."""

    type: str  # node, service or network
    action: str  # create, update or remove
    id: str
    attributes: dict[str, str] = {}  # the name, and what an update changed: replicas.old, replicas.new, …
