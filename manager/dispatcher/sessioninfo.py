"""What a session's node must know of the swarm. Pure."""

from __future__ import annotations

from shoal.api.messages import ManagerPeer, SessionInfo
from shoal.api.objects import Cluster, Node
from shoal.api.specs import SECOND_NS, ClusterSpec
from shoal.manager.store.state import State

MIN_LEASE_S = 0.3


def lease_s(view: State) -> float:
    """The length of a node's lease."""
    return lease_of(view.cluster.spec if view.cluster is not None else ClusterSpec())


def lease_of(spec: ClusterSpec) -> float:
    return max(spec.heartbeat_period_ns / SECOND_NS, MIN_LEASE_S)


def session_info(
    cluster: Cluster, node: Node, session_id: str, managers: tuple[ManagerPeer, ...], leader: str
) -> SessionInfo:
    return SessionInfo(
        session_id=session_id,
        node_id=node.id,
        lease_s=lease_of(cluster.spec),
        role=node.spec.role,
        managers=managers,
        leader=leader,
        cluster_id=cluster.id,
        root_ca_pem=cluster.root_ca.cert_pem,
        data_path_port=cluster.spec.data_path_port,
        shares_images=True,
    )
