"""What a manager's dispatcher and a host's agent say to each other.

A session is one WebSocket over mutual TLS. Frames are msgpack of these structs,
tagged by type. A manager sends one complete `Assignments`, then increments with
a growing `sequence`; an agent that misses one closes the session and starts anew.
"""

from __future__ import annotations

import msgspec

from shoal.api.objects import NodeDescription, Task, TaskStatus
from shoal.api.states import Role


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t"):
    """Base of what a session carries."""


# --- what a node must know of a network that it takes part in ---


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cluster network as a host needs it."""

    id: str
    name: str
    driver: str
    vni: int
    subnet: str
    gateway: str
    internal: bool = False
    attachable: bool = False
    mtu: int = 1450
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkEndpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint on a network: where its address and MAC are to be found."""

    id: str  # the task's id
    network_id: str
    address: str  # without prefix length
    mac: str
    node_id: str
    node_addr: str  # the underlay address of the node behind it
    names: tuple[str, ...] = ()  # every name this endpoint alone answers to: container, hostname, aliases
    service_name: str = ""  # also `tasks.<service_name>`
    healthy: bool = False  # RUNNING and wanted: a backend of its service's VIP, and in DNS


class NetworkService(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A service on a network: its name, VIP and where the VIP leads."""

    id: str
    network_id: str
    name: str
    vip: str = ""  # empty with dnsrr: the name answers with the backends
    aliases: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()  # addresses of healthy endpoints, sorted


# --- images that hosts give each other ---


class HeldImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image that a host can give to others, whole."""

    manifest: str  # digest
    index: str = ""  # digest of an index that names the manifest, which the host has too
    names: tuple[str, ...] = ()  # complete, with their tags
    tagged: float = 0.0  # when it got the last of them, seconds since the epoch
    private: bool = False  # a registry wanted credentials for it


class FoundImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image is."""

    digest: str  # of the manifest or index to begin with
    peers: tuple[str, ...]  # host:7946 of some that have it, in no order
    private: bool = False


# --- manager → agent ---


class Assignments(Message, frozen=True, kw_only=True, omit_defaults=True, tag="assignments"):
    """What this node should run and know. `complete`: replaces everything; else a difference.

    `removed_*` hold ids; of endpoints and services `(network_id, id)`.
    """

    sequence: int
    complete: bool = False
    tasks: tuple[Task, ...] = ()
    removed_tasks: tuple[str, ...] = ()
    networks: tuple[NetworkInfo, ...] = ()
    removed_networks: tuple[str, ...] = ()
    endpoints: tuple[NetworkEndpoint, ...] = ()
    removed_endpoints: tuple[tuple[str, str], ...] = ()
    services: tuple[NetworkService, ...] = ()
    removed_services: tuple[tuple[str, str], ...] = ()


class ManagerPeer(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    addr: str  # host:port


class SessionInfo(Message, frozen=True, kw_only=True, omit_defaults=True, tag="session"):
    """Sent first, and whenever one of these changes."""

    session_id: str
    node_id: str
    lease_s: float
    role: Role  # the role wanted of this node: where it differs from the certificate's, renew
    managers: tuple[ManagerPeer, ...]
    leader: str = ""  # node id
    cluster_id: str = ""
    root_ca_pem: str = ""
    data_path_port: int = 4789
    shares_images: bool = False  # the manager knows `HeldImages`, `FindImage` and `MayTake`


class Redirect(Message, frozen=True, kw_only=True, omit_defaults=True, tag="redirect"):
    """This manager does not lead; the session is closed after it."""

    leader_addr: str = ""


class Release(Message, frozen=True, kw_only=True, omit_defaults=True, tag="release"):
    """The tasks may get their stop signal: every node of their networks has taken them out."""

    task_ids: tuple[str, ...]


class Reply(Message, frozen=True, kw_only=True, omit_defaults=True, tag="reply"):
    """Answer to a `Request` of the agent. `error` empty means success."""

    id: int
    status: int = 200
    error: str = ""
    attachment: Task | None = None
    network: NetworkInfo | None = None
    image: FoundImage | None = None


# --- agent → manager ---


class Hello(Message, frozen=True, kw_only=True, omit_defaults=True, tag="hello"):
    description: NodeDescription
    session_id: str = ""  # the last session, if any
    addr: str = ""  # the address at which others reach this node's data plane


class Heartbeat(Message, frozen=True, kw_only=True, omit_defaults=True, tag="heartbeat"):
    pass


class StatusUpdates(Message, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    """Statuses in the order in which they were seen. Kept and sent again until `acked` by `StatusAck`."""

    number: int
    updates: tuple[tuple[str, TaskStatus], ...]


class StatusAck(Message, frozen=True, kw_only=True, omit_defaults=True, tag="status-ack"):
    """Manager → agent: the statuses up to `number` are committed."""

    number: int


class Applied(Message, frozen=True, kw_only=True, omit_defaults=True, tag="applied"):
    """The data plane of this node is at `sequence` (stop signals elsewhere wait for it, 2 s at most)."""

    sequence: int


class DescriptionUpdate(Message, frozen=True, kw_only=True, omit_defaults=True, tag="description"):
    description: NodeDescription


class Attach(Message, frozen=True, kw_only=True, omit_defaults=True, tag="attach"):
    """`docker run --network` on an attachable network: gives `container_id` an endpoint here.

    Answered by `Reply` with the attachment's task once it has an address.
    """

    id: int
    network: str  # id or name
    container_id: str
    name: str
    aliases: tuple[str, ...] = ()
    address: str = ""  # asked for by --ip


class Detach(Message, frozen=True, kw_only=True, omit_defaults=True, tag="detach"):
    id: int
    task_id: str


class FindNetwork(Message, frozen=True, kw_only=True, omit_defaults=True, tag="find-network"):
    """Does the swarm have an attachable network of this id or name?"""

    id: int
    network: str


class HeldImages(Message, frozen=True, kw_only=True, omit_defaults=True, tag="images"):
    """What this host can give to others. `complete`: all of it; else a difference. `gone`: by their manifests."""

    complete: bool = False
    held: tuple[HeldImage, ...] = ()
    gone: tuple[str, ...] = ()


class FindImage(Message, frozen=True, kw_only=True, omit_defaults=True, tag="find-image"):
    """Which other hosts have the image, named as in a task? Private ones are found for a task of this node alone."""

    id: int
    image: str


class MayTake(Message, frozen=True, kw_only=True, omit_defaults=True, tag="may-take"):
    """May that node have a private image of this one? Only where it has a task that uses it."""

    id: int
    node_id: str
    manifest: str  # digest


ToAgent = Assignments | SessionInfo | Redirect | Release | Reply | StatusAck
Request = Attach | Detach | FindNetwork | FindImage | MayTake
"""What is answered by a `Reply`."""

ToManager = Hello | Heartbeat | StatusUpdates | Applied | DescriptionUpdate | HeldImages | Request

to_agent = msgspec.msgpack.Decoder(ToAgent)
to_manager = msgspec.msgpack.Decoder(ToManager)
encode = msgspec.msgpack.Encoder().encode

MAX_FRAME_BYTES = 16 << 20
"""Larger frames are refused on both sides; an Assignments is split below it."""

