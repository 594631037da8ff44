"""What a container is: what was asked for, what is, and what happened to it.

Frozen structs, stored as they are. `None` means "not given, take the image's or
the default"; an empty tuple means "given, and empty". Units stand in names.
Nothing here knows a version of the HTTP API.
"""

from __future__ import annotations

import enum

import msgspec

from shoal.api.sandbox import EndpointRequest, PublishedPort
from shoal.api.specs import HealthCheck


class Noun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base: frozen, defaults left out of the encoding."""


# --- what was asked for ---


class ContainerConfig(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """What runs, wherever it runs. In a `Container` the image's own settings are merged in."""

    image: str = ""  # as it was asked for
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()  # "NAME=value"; "NAME" alone removes the image's
    working_dir: str = ""
    user: str = ""  # "user[:group]", names or numbers
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False  # its stdin ends when the first client that gave it input has gone
    attach_stdin: bool = False  # the three are kept for inspect; `Engine.attach` says what is attached
    attach_stdout: bool = False
    attach_stderr: bool = False
    stop_signal: str = ""
    stop_timeout_s: int | None = None  # None: 10; negative: wait for ever
    health_check: HealthCheck | None = None
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # paths that get an anonymous volume each
    network_disabled: bool = False
    mac_address: str = ""

    @property
    def ends_stdin(self) -> bool:
        """Whether its stdin ends with the client that gave it input. A terminal stays, to be attached to again."""
        return self.open_stdin and self.stdin_once and not self.tty


class RestartPolicy(Noun, frozen=True, kw_only=True, omit_defaults=True):
    name: str = "no"  # no, always, unless-stopped, on-failure
    max_retries: int = 0  # of on-failure; 0: unlimited


class MountRequest(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """A mount into the container. An empty `source` of a volume: an anonymous one."""

    type: str = "bind"  # bind, volume, tmpfs, image
    source: str = ""  # a path, the volume's name, or an image
    target: str
    read_only: bool = False
    propagation: str = ""  # bind: rprivate (default), private, rshared, shared, rslave, slave
    create_source: bool = False  # bind: make the directory where there is none (`-v`, not `--mount`)
    no_copy: bool = False  # volume: do not fill an empty one with what the image has at the target
    non_recursive: bool = False  # bind
    subpath: str = ""  # volume, image
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    options: tuple[str, ...] = ()  # tmpfs: more options of mount(8)
    volume_driver: str = ""
    volume_options: dict[str, str] = {}
    volume_labels: dict[str, str] = {}


class DeviceLimit(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """On one block device of the host: a weight, bytes or operations a second."""

    path: str
    value: int


class Limits(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """What the container may use; 0 (or empty) means no limit, or the kernel's default."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0  # memory and swap together; -1: unlimited; 0: twice the memory
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    blkio_weight: int = 0
    blkio_weight_devices: tuple[DeviceLimit, ...] = ()
    blkio_read_bps: tuple[DeviceLimit, ...] = ()
    blkio_write_bps: tuple[DeviceLimit, ...] = ()
    blkio_read_iops: tuple[DeviceLimit, ...] = ()
    blkio_write_iops: tuple[DeviceLimit, ...] = ()
    cpu_rt_period_us: int = 0
    cpu_rt_runtime_us: int = 0


class Ulimit(Noun, frozen=True, kw_only=True, omit_defaults=True):
    name: str  # nofile, nproc, …
    soft: int
    hard: int


class Device(Noun, frozen=True, kw_only=True, omit_defaults=True):
    path_on_host: str
    path_in_container: str = ""
    permissions: str = "rwm"


class LogConfig(Noun, frozen=True, kw_only=True, omit_defaults=True):
    driver: str = ""  # json-file (also where empty), local, none, journald
    options: dict[str, str] = {}  # max-size, max-file; tag


class HostConfig(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """How it runs on this host."""

    auto_remove: bool = False
    network_mode: str = "default"  # default, bridge, host, none, container:<id or name>, or a network
    endpoints: tuple[EndpointRequest, ...] = ()  # empty and a network as mode: that network
    ports: tuple[PublishedPort, ...] = ()
    publish_all: bool = False
    restart: RestartPolicy = RestartPolicy()
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()  # "container[:ro|rw]"
    volume_driver: str = ""  # of the anonymous volumes, where a path alone names them
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()  # no-new-privileges[:true], seccomp=unconfined, seccomp=<profile as JSON>
    read_only: bool = False
    init: bool | None = None
    limits: Limits = Limits()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    sysctls: dict[str, str] = {}
    group_add: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size_bytes: int = 0  # 0: 64 MiB
    oom_score_adj: int = 0
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()  # "c 1:3 rwm"
    ipc_mode: str = ""  # private (default), none, shareable, host, container:<id or name>
    pid_mode: str = ""  # "", host, container:<id or name>
    uts_mode: str = ""  # "", host
    cgroupns_mode: str = ""  # "" (private on cgroup v2, else host), private, host
    userns_mode: str = ""  # kept for inspect
    cgroup_parent: str = ""
    log: LogConfig = LogConfig()
    runtime: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    console_size: tuple[int, int] = (0, 0)  # height, width
    links: tuple[str, ...] = ()  # on the default network: "container:alias"
    isolation: str = ""  # kept for inspect, as are the next two
    binds: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


# --- what is ---


class Status(enum.StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"  # it ended, and waits to be started again
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"  # its removal failed


class HealthResult(Noun, frozen=True, kw_only=True, omit_defaults=True):
    start_ns: int
    end_ns: int
    exit_code: int
    output: str = ""


class Health(Noun, frozen=True, kw_only=True, omit_defaults=True):
    status: str = "starting"  # starting, healthy, unhealthy
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()  # the last five


class State(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """Times are nanoseconds since the epoch; 0: never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    health: Health | None = None  # None: it has no health check
    restart_count: int = 0
    has_been_manually_stopped: bool = False  # neither always nor unless-stopped starts it again by itself

    @property
    def running(self) -> bool:
        """Whether a process is there. As Docker has it, `restarting` counts too."""
        return self.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


class MountPoint(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """A mount as it was resolved when the container was made."""

    type: str  # bind, volume, tmpfs, image
    target: str
    source: str = ""  # on the host
    name: str = ""  # of the volume, or of the image
    image_id: str = ""
    driver: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    anonymous: bool = False  # a volume that goes with its container
    request: MountRequest | None = None  # where it came from a request


class Container(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """One container, at one instant."""

    id: str
    name: str  # no slash before it
    created_ns: int
    image_id: str  # sha256:…
    config: ContainerConfig
    host: HostConfig
    mounts: tuple[MountPoint, ...] = ()
    state: State = State()

    @property
    def argv(self) -> tuple[str, ...]:
        """What is run: entrypoint, then command."""
        return (*(self.config.entrypoint or ()), *(self.config.command or ()))


class Created(Noun, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    warnings: tuple[str, ...] = ()


class WaitResult(Noun, frozen=True, kw_only=True, omit_defaults=True):
    exit_code: int
    error: str = ""


# --- exec ---


class ExecConfig(Noun, frozen=True, kw_only=True, omit_defaults=True):
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)  # height, width


class Exec(Noun, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    container_id: str
    config: ExecConfig
    running: bool = False
    exit_code: int | None = None  # None until it has ended
    pid: int = 0


# --- around it ---


class Event(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """`type`: container, volume; the daemon adds image, network and the swarm's. `action` as Docker names it."""

    type: str
    action: str  # create, start, die, kill, stop, oom, destroy, exec_create: sh, health_status: healthy, …
    actor_id: str
    attributes: dict[str, str] = {}
    time_ns: int = 0
    scope: str = "local"  # or swarm


class LogQuery(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """`tail` < 0: all lines. `since`, `until`: nanoseconds since the epoch; 0: unbounded."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    tail: int = -1
    since_ns: int = 0
    until_ns: int = 0


class Pruned(Noun, frozen=True, kw_only=True, omit_defaults=True):
    deleted: tuple[str, ...] = ()
    reclaimed_bytes: int = 0


class BlockUse(Noun, frozen=True, kw_only=True, omit_defaults=True):
    major: int
    minor: int
    operation: str  # read, write
    value: int  # bytes


class Usage(Noun, frozen=True, kw_only=True, omit_defaults=True):
    """One sample of what a container uses. All zero where it does not run."""

    read_ns: int = 0
    cgroup_version: int = 1
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_per_cpu_ns: tuple[int, ...] = ()
    host_cpu_ns: int = 0  # of all CPUs together, busy and idle
    online_cpus: int = 0
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_max_bytes: int = 0  # cgroup v1 only
    memory_limit_bytes: int = 0  # the host's where there is no limit
    memory_failures: int = 0
    memory_stats: dict[str, int] = {}
    pids: int = 0
    pids_limit: int = 0
    block: tuple[BlockUse, ...] = ()
    networks: dict[str, dict[str, int]] = {}  # interface → rx_bytes, rx_packets, rx_errors, rx_dropped, tx_…
