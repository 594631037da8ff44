"""The bodies of /containers and /exec as clients send them. Shapes only; what values mean is in the neighbours."""

from __future__ import annotations

from typing import Any

from msgspec import field

from shoal.api.wire import Wire

Words = tuple[str, ...] | str
"""A command: a list of words, or one word."""

UNSUPPORTED = {
    name.lower(): name
    for name in (
        "HostConfig.CpuCount", "HostConfig.CpuPercent", "HostConfig.DeviceRequests", "HostConfig.IOMaximumBandwidth",
        "HostConfig.IOMaximumIOps", "HostConfig.KernelMemory", "HostConfig.KernelMemoryTCP",
    )
}
"""Fields that Docker knows and this engine has nothing for: refused where they say something."""


class HealthWire(Wire, frozen=True):
    """Durations are nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class BindingWire(Wire, frozen=True):
    host_ip: str = ""
    host_port: str = ""


class RestartWire(Wire, frozen=True):
    name: str = ""
    maximum_retry_count: int = 0


class LogWire(Wire, frozen=True):
    type: str = ""
    config: dict[str, str] = field(default_factory=dict)


class UlimitWire(Wire, frozen=True):
    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceWire(Wire, frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class BindOptionsWire(Wire, frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverWire(Wire, frozen=True):
    name: str = ""
    options: dict[str, str] = field(default_factory=dict)


class VolumeOptionsWire(Wire, frozen=True):
    no_copy: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    driver_config: DriverWire = DriverWire()
    subpath: str = ""


class TmpfsOptionsWire(Wire, frozen=True):
    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] = ()


class ImageOptionsWire(Wire, frozen=True):
    subpath: str = ""


class MountWire(Wire, frozen=True):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptionsWire | None = None
    volume_options: VolumeOptionsWire | None = None
    tmpfs_options: TmpfsOptionsWire | None = None
    image_options: ImageOptionsWire | None = None


class LimitsWire(Wire, frozen=True):
    """What a container may use: part of a HostConfig, and the body of an update."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None


class UpdateWire(LimitsWire, frozen=True):
    restart_policy: RestartWire | None = None


class WeightDeviceWire(Wire, frozen=True):
    path: str = ""
    weight: int = 0


class ThrottleDeviceWire(Wire, frozen=True):
    path: str = ""
    rate: int = 0


class HostWire(LimitsWire, frozen=True):
    blkio_weight_device: tuple[WeightDeviceWire, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDeviceWire, ...] = ()
    blkio_device_write_bps: tuple[ThrottleDeviceWire, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDeviceWire, ...] = field(name="BlkioDeviceReadIOps", default=())
    blkio_device_write_iops: tuple[ThrottleDeviceWire, ...] = field(name="BlkioDeviceWriteIOps", default=())
    binds: tuple[str, ...] = ()
    log_config: LogWire = LogWire()
    network_mode: str = ""
    port_bindings: dict[str, tuple[BindingWire, ...]] = field(default_factory=dict)
    restart_policy: RestartWire = RestartWire()
    auto_remove: bool = False
    storage_opt: dict[str, str] = field(default_factory=dict)
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    mounts: tuple[MountWire, ...] = ()
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] = field(default_factory=dict)
    cap_add: Words = ()
    cap_drop: Words = ()
    cgroup_parent: str = ""
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    links: tuple[str, ...] = ()
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] = ()
    tmpfs: dict[str, str] = field(default_factory=dict)
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = field(default_factory=dict)
    runtime: str = ""
    isolation: str = ""
    devices: tuple[DeviceWire, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    ulimits: tuple[UlimitWire, ...] = ()
    init: bool | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


class AddressWire(Wire, frozen=True):
    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = field(name="LinkLocalIPs", default=())


class EndpointWire(Wire, frozen=True):
    """A place on a network. What a running endpoint shows as well (EndpointID, Gateway, …) is not asked for."""

    ipam_config: AddressWire = AddressWire()
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0


class NetworkingWire(Wire, frozen=True):
    endpoints_config: dict[str, Any] = field(default_factory=dict)  # network → EndpointWire, or null


class CreateWire(Wire, frozen=True):
    """The body of POST /containers/create."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = field(default_factory=dict)
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: Words | None = None
    entrypoint: Words | None = None
    healthcheck: HealthWire | None = None
    image: str = ""
    volumes: dict[str, Any] = field(default_factory=dict)
    working_dir: str = ""
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    host_config: HostWire = HostWire()
    networking_config: NetworkingWire = NetworkingWire()


class ExecWire(Wire, frozen=True):
    """The body of POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: tuple[int, int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: tuple[str, ...] = ()
    cmd: Words = ()
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStartWire(Wire, frozen=True):
    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class ConnectWire(Wire, frozen=True):
    """The body of POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointWire = EndpointWire()


class DisconnectWire(Wire, frozen=True):
    container: str = ""
    force: bool = False
