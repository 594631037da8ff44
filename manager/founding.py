"""A new swarm: its authority, its first host, and the records that it begins with."""

from __future__ import annotations

import secrets

import msgspec

from shoal.api.ids import new_swarm_id
from shoal.api.membership import Identity, InitRequest, at_port
from shoal.api.messages import ManagerPeer
from shoal.api.objects import Cluster, ManagerInfo, Network, Node, NodeDescription, NodeStatus
from shoal.api.specs import NetworkSpec, NodeSpec
from shoal.api.states import NodeState, Role
from shoal.manager.ca.issue import issue, new_key, new_request, new_root
from shoal.manager.ca.tokens import new_tokens
from shoal.manager.hostfolder import HostFolder
from shoal.manager.membership import join_of, manager_address
from shoal.manager.store.changes import Command, Create
from shoal.manager.store.raft import Member

INGRESS = "ingress"


class First:
    """The first host of a new swarm, and the swarm's first records. `now`: seconds since the epoch."""

    def __init__(self, request: InitRequest, now: float) -> None:
        self._now = now
        node_id, spec = new_swarm_id(), msgspec.structs.replace(request.spec, data_path_port=request.data_path_port)
        self.cluster = Cluster(id=new_swarm_id(), spec=spec, root_ca=new_root(now), join_tokens=new_tokens())
        self.identity = Identity(
            node_id=node_id, cluster_id=self.cluster.id, role=Role.MANAGER, advertise_addr=request.advertise_addr,
            advertise_port=request.advertise_port, listen_addr=request.listen_addr, listen_port=request.listen_port,
            data_path_addr=request.data_path_addr, data_path_port=request.data_path_port, raft_id=new_swarm_id(),
            managers=(ManagerPeer(node_id=node_id, addr=at_port(request.advertise_addr, request.advertise_port)),))

    def certify(self, folder: HostFolder) -> None:
        """Give the host its key and certificate."""
        key, cluster = new_key(), self.cluster
        certificate = issue(cluster.root_ca, new_request(key), node_id=self.identity.node_id, role=Role.MANAGER,
                            cluster_id=cluster.id, lifetime_ns=cluster.spec.node_cert_expiry_ns, now=self._now)
        folder.save_certificate(key, certificate, cluster.root_ca.cert_pem)

    def command(self, me: Member, request: InitRequest) -> Command:
        """The cluster, its node, the ingress network."""
        identity = self.identity
        node = Node(
            id=identity.node_id,
            spec=NodeSpec(role=Role.MANAGER, availability=request.availability),
            role=Role.MANAGER,
            description=NodeDescription(hostname=request.hostname),
            status=NodeStatus(state=NodeState.UNKNOWN, addr=identity.data_path_addr or identity.advertise_addr),
            manager=ManagerInfo(raft_id=join_of(me.id), addr=manager_address(me)),
        )
        ingress = Network(id=new_swarm_id(), spec=NetworkSpec(name=INGRESS, ingress=True))
        return Command(request_id=secrets.token_hex(16), at=self._now, atomic=True,
                       changes=(Create(record=self.cluster), Create(record=node), Create(record=ingress)))
