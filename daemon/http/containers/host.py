"""How it runs on this host: from the body of a create to a `HostConfig`. Pure.

What can only be wrong on the wire is refused here; what a value means, the engine checks.
"""

from __future__ import annotations

import re

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.containers.config import words
from shoal.daemon.http.containers.limits import host_limits, restart_policy, ulimit
from shoal.daemon.http.containers.mounts import mounts
from shoal.daemon.http.containers.networking import checked_mac, endpoints, linked, network_mode, published
from shoal.daemon.http.containers.wire import CreateWire, DeviceWire, HostWire
from shoal.engine.containers.nouns import Device, HostConfig, LogConfig

_PERMISSIONS = re.compile(r"[rwm]{1,3}", re.ASCII)


def host_config(wire: CreateWire) -> HostConfig:
    """Raises InvalidArgument naming the field, NotImplementedHere for what would be lost."""
    host = wire.host_config
    mode = network_mode(host, disabled=wire.network_disabled)
    _check(wire, host, mode)
    places = endpoints(mode, wire.networking_config, checked_mac(wire.mac_address))
    places, links = linked(mode, places, host.links)
    return HostConfig(
        auto_remove=host.auto_remove,
        network_mode=mode,
        endpoints=places,
        ports=published(host.port_bindings),
        publish_all=host.publish_all_ports,
        restart=restart_policy(host.restart_policy),
        mounts=mounts(host),
        volumes_from=host.volumes_from,
        volume_driver=host.volume_driver,
        privileged=host.privileged,
        cap_add=words(host.cap_add),
        cap_drop=words(host.cap_drop),
        security_opt=host.security_opt,
        read_only=host.readonly_rootfs,
        init=host.init,
        limits=host_limits(host),
        dns=host.dns,
        dns_options=host.dns_options,
        dns_search=host.dns_search,
        extra_hosts=host.extra_hosts,
        sysctls=host.sysctls,
        group_add=host.group_add,
        ulimits=tuple(ulimit(each) for each in host.ulimits),
        shm_size_bytes=host.shm_size,
        oom_score_adj=host.oom_score_adj,
        devices=tuple(_device(each) for each in host.devices),
        device_cgroup_rules=host.device_cgroup_rules,
        ipc_mode=host.ipc_mode,
        pid_mode=host.pid_mode,
        uts_mode=host.uts_mode,
        cgroupns_mode=host.cgroupns_mode,
        userns_mode=host.userns_mode,
        cgroup_parent=host.cgroup_parent,
        log=LogConfig(driver=host.log_config.type, options=host.log_config.config),
        runtime=host.runtime,
        masked_paths=host.masked_paths,
        readonly_paths=host.readonly_paths,
        console_size=host.console_size,
        links=links,
        isolation=host.isolation,
        binds=host.binds,
        annotations=host.annotations,
    )


def _check(wire: CreateWire, host: HostWire, mode: str) -> None:
    if host.links and (mode == "host" or mode.startswith("container:")):
        kind = "host" if mode == "host" else "container"
        raise InvalidArgument(f"conflicting options: {kind} type networking can't be used with links. This would "
                              "result in undefined behavior")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")
    if any(not 0 <= each <= 65535 for each in host.console_size):
        raise InvalidArgument(f"invalid ConsoleSize {list(host.console_size)}: each from 0 to 65535")
    _check_namespaces(host)
    if mode.startswith("container:"):
        _check_shared_network(wire, host)


def _check_namespaces(host: HostWire) -> None:
    for shown, value, allowed in (
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host")),
        ("PID", host.pid_mode, ("", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("user namespace", host.userns_mode, ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host")),
    ):
        shares = shown in ("IPC", "PID") and value.startswith("container:") and value != "container:"
        if value not in allowed and not shares:
            raise InvalidArgument(f"invalid {shown} mode: {value}")


def _check_shared_network(wire: CreateWire, host: HostWire) -> None:
    for shown, given in (
        ("hostname", wire.hostname), ("dns options", host.dns), ("custom host-to-IP mapping", host.extra_hosts),
        ("mac-address", wire.mac_address), ("port publishing", host.port_bindings or host.publish_all_ports),
        ("port exposing", wire.exposed_ports),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {shown} and the container type network mode")


def _device(wire: DeviceWire) -> Device:
    if not wire.path_on_host.startswith("/"):
        raise InvalidArgument(f"Devices: PathOnHost {wire.path_on_host!r} has to be absolute")
    permissions = wire.cgroup_permissions or "rwm"
    if not _PERMISSIONS.fullmatch(permissions):
        raise InvalidArgument(f"Devices: invalid CgroupPermissions {permissions!r}: use r, w and m")
    return Device(path_on_host=wire.path_on_host, path_in_container=wire.path_in_container or wire.path_on_host,
                  permissions=permissions)
