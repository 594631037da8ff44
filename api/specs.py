"""What users want: specifications, stored exactly as they were accepted.

Units stand in names: `_bytes`, `_ns` (nanoseconds, as the API has them),
`nano_cpus` (10⁻⁹ CPU). Nothing here knows a version of the HTTP API.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shoal.api.states import Availability, Role

SECOND_NS = 1_000_000_000


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of specifications: frozen, defaults left out of the encoding; no cycles, hence no garbage collection."""


class Mount(Spec, frozen=True, kw_only=True, omit_defaults=True):
    type: str = "bind"  # bind, volume, tmpfs
    source: str = ""
    target: str = ""
    read_only: bool = False
    options: dict[str, Any] = {}


class HealthCheck(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """`test` as the API has it: [] inherits, ["NONE"] disables, ["CMD", …], ["CMD-SHELL", …]."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class PullOptions(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """How a container's image is brought. No client is shown it, and nothing that prints a specification prints it.

    `registry_auth`: the X-Registry-Auth of who made the service, as it came.
    """

    registry_auth: str

    def __repr__(self) -> str:
        return "PullOptions(registry_auth=…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("registry_auth", "…")]


class ContainerSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    image: str
    pull_options: PullOptions | None = None
    command: tuple[str, ...] = ()  # replaces the image's entrypoint
    args: tuple[str, ...] = ()  # replaces the image's command
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    hostname: str = ""
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    hosts: tuple[str, ...] = ()
    dns_nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_grace_period_ns: int = 10 * SECOND_NS
    health_check: HealthCheck | None = None
    init: bool | None = None
    sysctls: dict[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()


class Resources(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """An amount of each resource; 0 means none asked, or no limit."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
    generic: dict[str, int] = {}


class ResourceRequirements(Spec, frozen=True, kw_only=True, omit_defaults=True):
    limits: Resources = Resources()
    reservations: Resources = Resources()


class RestartPolicy(Spec, frozen=True, kw_only=True, omit_defaults=True):
    condition: str = "any"  # none, on-failure, any
    delay_ns: int = 5 * SECOND_NS
    max_attempts: int = 0  # 0: unlimited
    window_ns: int | None = None  # None or 0: unbounded


class Platform(Spec, frozen=True, kw_only=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""


class Placement(Spec, frozen=True, kw_only=True, omit_defaults=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()  # spread descriptors, e.g. "node.labels.zone"
    max_replicas: int = 0  # per node; 0: unlimited
    platforms: tuple[Platform, ...] = ()


NODE_LOCAL = ("bridge", "host")
"""Networks that every node has by itself. A task names one in place of an id; nothing is allocated for it."""


class NetworkAttachmentSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    target: str  # network id once stored; id or name as given
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}
    address: str = ""  # asked for by `docker run --ip`; attachments only


class LogDriver(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] = {}


class TaskSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    container: ContainerSpec | None = None
    attachment: str | None = None  # container id: a `docker run` on an attachable network
    resources: ResourceRequirements = ResourceRequirements()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    log_driver: LogDriver | None = None
    force_update: int = 0

    @property
    def swarm_networks(self) -> tuple[NetworkAttachmentSpec, ...]:
        """Without those that every node has by itself."""
        return tuple(each for each in self.networks if each.target not in NODE_LOCAL)


class UpdateConfig(Spec, frozen=True, kw_only=True, omit_defaults=True):
    parallelism: int = 1  # 0: all at once
    delay_ns: int = 0
    failure_action: str = "pause"  # pause, continue, rollback
    monitor_ns: int = 5 * SECOND_NS
    max_failure_ratio: float = 0.0
    order: str = "stop-first"  # stop-first, start-first


class PortConfig(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "ingress"  # ingress, host


class EndpointSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    mode: str = "vip"  # vip, dnsrr
    ports: tuple[PortConfig, ...] = ()


class ServiceMode(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """`kind`: replicated or global. Jobs are refused at the API for now."""

    kind: str = "replicated"
    replicas: int = 1


class ServiceSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    labels: dict[str, str] = {}
    task: TaskSpec
    mode: ServiceMode = ServiceMode()
    update: UpdateConfig | None = None  # None: the defaults of UpdateConfig
    rollback: UpdateConfig | None = None
    endpoint: EndpointSpec = EndpointSpec()


class NodeSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    labels: dict[str, str] = {}
    role: Role = Role.WORKER
    availability: Availability = Availability.ACTIVE


class IPAMPool(Spec, frozen=True, kw_only=True, omit_defaults=True):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""


class NetworkSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    labels: dict[str, str] = {}
    driver: str = "overlay"
    driver_opts: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    ipv6: bool = False
    pools: tuple[IPAMPool, ...] = ()


class ClusterSpec(Spec, frozen=True, kw_only=True, omit_defaults=True):
    name: str = "default"
    labels: dict[str, str] = {}
    task_history_limit: int = 5
    snapshot_interval: int = 10_000
    log_entries_for_slow_followers: int = 500
    election_tick: int = 10
    heartbeat_tick: int = 1
    heartbeat_period_ns: int = 3 * SECOND_NS
    """The lease of a node: it is DOWN when it has not been heard of for this long."""
    node_cert_expiry_ns: int = 90 * 24 * 3600 * SECOND_NS
    default_address_pool: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    ca_force_rotate: int = 0
    auto_lock: bool = False
