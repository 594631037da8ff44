"""`HostConfig` as clients read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shoal.api.sandbox import PublishedPort
from shoal.daemon.http.containers.mounts import bind
from shoal.engine.containers.nouns import DeviceLimit, HostConfig, MountRequest

DEFAULT_SHM_BYTES = 64 << 20
MASKED = ("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
          "/sys/devices/virtual/powercap")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_NOTHING: dict[str, Any] = {
    "ContainerIDFile": "", "Cgroup": "",
    "DeviceRequests": [],
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
}
"""What clients expect to be there, and nothing here has."""


def host_config_json(host: HostConfig, runtime: str, cgroupns: str) -> dict[str, Any]:
    """`runtime` and `cgroupns`: what a container has that asks for none."""
    shown: dict[str, Any] = {
        **_NOTHING,
        "Binds": list(host.binds),
        "LogConfig": {"Type": host.log.driver or "json-file", "Config": host.log.options},
        "NetworkMode": "bridge" if host.network_mode == "default" else host.network_mode,
        "PortBindings": _port_bindings(host),
        "RestartPolicy": {"Name": host.restart.name, "MaximumRetryCount": host.restart.max_retries},
        "AutoRemove": host.auto_remove,
        "VolumesFrom": list(host.volumes_from),
        "VolumeDriver": host.volume_driver,
        "Isolation": host.isolation,
        "ConsoleSize": list(host.console_size),
        "CapAdd": list(host.cap_add),
        "CapDrop": list(host.cap_drop),
        "CgroupnsMode": host.cgroupns_mode or cgroupns,
        "Dns": list(host.dns),
        "DnsOptions": list(host.dns_options),
        "DnsSearch": list(host.dns_search),
        "ExtraHosts": list(host.extra_hosts),
        "GroupAdd": list(host.group_add),
        "IpcMode": host.ipc_mode or "private",
        "OomScoreAdj": host.oom_score_adj,
        "PidMode": host.pid_mode,
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": list(host.security_opt),
        "UTSMode": host.uts_mode,
        "UsernsMode": host.userns_mode,
        "ShmSize": host.shm_size_bytes or DEFAULT_SHM_BYTES,
        "Runtime": host.runtime or runtime,
        "CgroupParent": host.cgroup_parent,
        "Devices": [
            {"PathOnHost": each.path_on_host, "PathInContainer": each.path_in_container,
             "CgroupPermissions": each.permissions} for each in host.devices],
        "DeviceCgroupRules": list(host.device_cgroup_rules),
        "Ulimits": [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in host.ulimits],
        **_limits(host),
        **_paths(host),
    }
    optional = {"Mounts": _mounts(host), "Tmpfs": _tmpfs(host), "Sysctls": host.sysctls,
                "Annotations": host.annotations}
    shown |= {key: value for key, value in optional.items() if value}
    if host.init is not None:
        shown["Init"] = host.init
    return shown


def _limits(host: HostConfig) -> dict[str, Any]:
    limits = host.limits
    return {
        "CpuShares": limits.cpu_shares,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": [{"Path": each.path, "Weight": each.value} for each in limits.blkio_weight_devices],
        "BlkioDeviceReadBps": _throttles(limits.blkio_read_bps),
        "BlkioDeviceWriteBps": _throttles(limits.blkio_write_bps),
        "BlkioDeviceReadIOps": _throttles(limits.blkio_read_iops),
        "BlkioDeviceWriteIOps": _throttles(limits.blkio_write_iops),
        "CpuPeriod": limits.cpu_period_us,
        "CpuQuota": limits.cpu_quota_us,
        "CpuRealtimePeriod": limits.cpu_rt_period_us,
        "CpuRealtimeRuntime": limits.cpu_rt_runtime_us,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "MemoryReservation": limits.memory_reservation_bytes,
        "MemorySwap": limits.memory_swap_bytes or 2 * limits.memory_bytes,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids or None,
    }


def _throttles(limits: Iterable[DeviceLimit]) -> list[dict[str, Any]]:
    return [{"Path": each.path, "Rate": each.value} for each in limits]


def _paths(host: HostConfig) -> dict[str, Any]:
    if host.privileged:
        return {"MaskedPaths": [], "ReadonlyPaths": []}
    return {"MaskedPaths": list(MASKED if host.masked_paths is None else host.masked_paths),
            "ReadonlyPaths": list(READ_ONLY if host.readonly_paths is None else host.readonly_paths)}


def _port_bindings(host: HostConfig) -> dict[str, list[dict[str, str]]]:
    shown: dict[str, list[dict[str, str]]] = {}
    for port in host.ports:
        shown.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            {"HostIp": port.host_ip, "HostPort": _host_port(port)})
    return shown


def _host_port(port: PublishedPort) -> str:
    if port.last_host_port:
        return f"{port.host_port}-{port.last_host_port}"
    return str(port.host_port) if port.host_port else ""


def _is_short_tmpfs(mount: MountRequest) -> bool:
    """Whether it was asked for by `Tmpfs`, not by `Mounts`."""
    return mount.type == "tmpfs" and not (mount.tmpfs_size_bytes or mount.tmpfs_mode or mount.read_only)


def _tmpfs(host: HostConfig) -> dict[str, str]:
    return {each.target: ",".join(each.options) for each in host.mounts if _is_short_tmpfs(each)}


def _mounts(host: HostConfig) -> list[dict[str, Any]]:
    from_binds = {bind(text).target for text in host.binds}
    return [_mount(each) for each in host.mounts if each.target not in from_binds and not _is_short_tmpfs(each)]


def _mount(mount: MountRequest) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": mount.type, "Source": mount.source, "Target": mount.target,
                             "ReadOnly": mount.read_only}
    options: dict[str, Any] = {}
    if mount.type == "bind":
        options = {"Propagation": mount.propagation, "NonRecursive": mount.non_recursive,
                   "CreateMountpoint": mount.create_source}
    elif mount.type == "volume":
        driver = {"Name": mount.volume_driver, "Options": mount.volume_options}
        options = {"NoCopy": mount.no_copy, "Labels": mount.volume_labels, "Subpath": mount.subpath,
                   "DriverConfig": driver if any(driver.values()) else None}
    elif mount.type == "image":
        options = {"Subpath": mount.subpath}
    elif mount.type == "tmpfs":
        options = {"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode,
                   "Options": [each.split("=", 1) for each in mount.options]}
    options = {key: value for key, value in options.items() if value}
    shown = {key: value for key, value in shown.items() if value}
    return {**shown, f"{mount.type.title()}Options": options} if options else shown
