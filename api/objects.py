"""What the cluster's store holds: one frozen record for each object.

`meta.version` is the Raft index that last changed what is wanted of the object: the
version that clients see. `meta.revision` is the index of the last change of any
kind but an agent's status: what a decision names as read. Times are seconds since the epoch, minted by the proposer and
for people only: no decision compares the clocks of two hosts.
"""

from __future__ import annotations

import msgspec

from shoal.api.specs import ClusterSpec, NetworkSpec, NodeSpec, PortConfig, Resources, ServiceSpec, TaskSpec
from shoal.api.states import NodeState, Role, TaskState


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of stored records. They hold no cycles: the collector need not walk 100,000 of them (pauses of 250 ms)."""


class Meta(Record, frozen=True, kw_only=True, omit_defaults=True):
    version: int = 0
    revision: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


class JoinTokens(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The secret parts of the tokens (25 characters, base 36)."""

    worker: str
    manager: str


class RootCA(Record, frozen=True, kw_only=True, omit_defaults=True):
    """`key_pem` signs; it is stored only in the managers' replicated state."""

    cert_pem: str
    key_pem: str
    digest: str  # 50 characters, base 36: what a join token carries


class Cluster(Record, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="cluster"):
    id: str
    meta: Meta = Meta()
    spec: ClusterSpec = ClusterSpec()
    root_ca: RootCA
    join_tokens: JoinTokens
    next_vni: int = 4097


class NodeDescription(Record, frozen=True, kw_only=True, omit_defaults=True):
    hostname: str = ""
    os: str = "linux"
    architecture: str = "x86_64"
    resources: Resources = Resources()
    engine_version: str = ""
    engine_labels: dict[str, str] = {}
    plugins: tuple[tuple[str, str], ...] = ()  # (type, name)
    schema: int = 1  # newest schema of commands that it understands


class NodeStatus(Record, frozen=True, kw_only=True, omit_defaults=True):
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    addr: str = ""


class ManagerInfo(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A manager's part in Raft. `raft_id` is fresh for each join."""

    raft_id: str
    addr: str  # host:port, where it serves


class Node(Record, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="node"):
    id: str
    meta: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    role: Role = Role.WORKER  # what its certificate says; spec.role is what is wanted
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager: ManagerInfo | None = None


class UpdateStatus(Record, frozen=True, kw_only=True, omit_defaults=True):
    state: str  # updating, paused, completed, rollback_started, rollback_paused, rollback_completed
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""


class VirtualIP(Record, frozen=True, kw_only=True, omit_defaults=True):
    network_id: str
    addr: str  # with prefix length, as the API shows it


class Endpoint(Record, frozen=True, kw_only=True, omit_defaults=True):
    mode: str = "vip"
    ports: tuple[PortConfig, ...] = ()
    virtual_ips: tuple[VirtualIP, ...] = ()


class Service(Record, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="service"):
    id: str
    meta: Meta = Meta()
    spec: ServiceSpec
    previous_spec: ServiceSpec | None = None
    spec_version: int = 0  # Raft index at which the task part of the spec last changed
    endpoint: Endpoint = Endpoint()
    update_status: UpdateStatus | None = None


class ContainerStatus(Record, frozen=True, kw_only=True, omit_defaults=True):
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0


class TaskStatus(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent (from ACCEPTED on) or the manager (before) has seen."""

    state: TaskState = TaskState.NEW
    timestamp: float = 0.0
    message: str = ""
    err: str = ""
    container: ContainerStatus | None = None


class NetworkAttachment(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint: a task's place on a network."""

    network_id: str
    addresses: tuple[str, ...] = ()  # with prefix length
    aliases: tuple[str, ...] = ()
    mac: str = ""


class Task(Record, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="task"):
    """One attempt to run a container. It never moves once it has a node.

    The manager writes `desired`; the agent writes `status` from ACCEPTED on;
    the scheduler writes `node_id`, once. `spec` is the user's intent; nobody edits it.
    """

    id: str
    meta: Meta = Meta()
    service_id: str = ""
    service_name: str = ""
    slot: int = 0  # 1-based; 0 in global services and attachments
    node_id: str = ""
    spec: TaskSpec
    spec_version: int = 0
    endpoint_mode: str = "vip"
    ports: tuple[PortConfig, ...] = ()  # those that it opens on its own node (publish mode host)
    desired: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    attachments: tuple[NetworkAttachment, ...] = ()
    restart_count: int = 0
    start_after: float = 0.0  # seconds of delay before it may go from READY to RUNNING; a duration

    @property
    def name(self) -> str:
        """`service.slot.id` as containers are named; global tasks have their node for a slot."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}" if self.service_name else self.id


class IPAMConfig(Record, frozen=True, kw_only=True, omit_defaults=True):
    subnet: str
    gateway: str
    ip_range: str = ""


class Network(Record, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="network"):
    id: str
    meta: Meta = Meta()
    spec: NetworkSpec
    vni: int = 0
    ipam: tuple[IPAMConfig, ...] = ()


StoredObject = Cluster | Node | Service | Task | Network

TABLES: dict[str, type[Cluster] | type[Node] | type[Service] | type[Task] | type[Network]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "task": Task,
    "network": Network,
}
"""Table name → type of its records."""
