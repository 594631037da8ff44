"""A container as `docker inspect` shows it. Pure: what it needs beside the container is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shoal.api.sandbox import EndpointInfo, EndpointRequest, PublishedPort, Sandbox
from shoal.api.specs import HealthCheck
from shoal.daemon.http.containers.shownhost import host_config_json
from shoal.daemon.http.times import rfc3339
from shoal.engine.containers.logs.drivers import JOURNALD
from shoal.engine.containers.nouns import Container, ContainerConfig, Health, MountPoint, State, Status
from shoal.engine.containers.oci.host import apparmor_profile
from shoal.engine.containers.oci.spec import security

NetworkOf = Callable[[str], tuple[str, str]]
"""(id, name) of a network by id or name; ("", the reference) where it is not known."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown with a container, and is none of its own fields."""

    sandbox: Sandbox | None
    network_of: NetworkOf
    runtime: str
    driver: str
    cgroupns: str  # the mode of who asks for none
    log_path: str = ""
    exec_ids: Sequence[str] = ()
    links: Sequence[str] = ()  # "/container:/this one/alias"


def inspect_json(container: Container, around: Surroundings) -> dict[str, Any]:
    argv = container.argv
    return {
        "Id": container.id,
        "Created": rfc3339(container.created_ns),
        "Path": argv[0] if argv else "",
        "Args": list(argv[1:]),
        "State": state_json(container.state),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "" if container.host.log.driver in ("none", JOURNALD) else around.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": around.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor_profile(security(container.host.security_opt).apparmor),
        "ExecIDs": list(around.exec_ids) or None,
        "HostConfig": {**host_config_json(container.host, around.runtime, around.cgroupns),
                       "Links": list(around.links)},
        "GraphDriver": {"Name": around.driver, "Data": {}},
        "Mounts": [mount_json(each) for each in container.mounts],
        "Config": config_json(container),
        "NetworkSettings": network_settings(container, around.sandbox, around.network_of),
    }


def state_json(state: State) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Status": state.status.value,
        "Running": state.running,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_ns),
        "FinishedAt": rfc3339(state.finished_ns),
    }
    if state.health is not None:
        shown["Health"] = _health(state.health)
    return shown


def _health(health: Health) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [{"Start": rfc3339(each.start_ns), "End": rfc3339(each.end_ns), "ExitCode": each.exit_code,
                 "Output": each.output} for each in health.log],
    }


def config_json(container: Container) -> dict[str, Any]:
    config: ContainerConfig = container.config
    shown: dict[str, Any] = {
        "Hostname": config.hostname or container.id[:12],
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": list(config.env),
        "Cmd": list(config.command or ()),
        "Image": config.image,
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint or ()),
        "OnBuild": [],
        "Labels": config.labels,
    }
    optional = {
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "MacAddress": config.mac_address, "NetworkDisabled": config.network_disabled,
        "StopSignal": config.stop_signal, "Healthcheck": _health_check(config.health_check),
    }
    shown |= {key: value for key, value in optional.items() if value}
    if config.stop_timeout_s is not None:
        shown["StopTimeout"] = config.stop_timeout_s
    return shown


def _health_check(check: HealthCheck | None) -> dict[str, Any]:
    if check is None:
        return {}
    shown = {"Test": list(check.test), "Interval": check.interval_ns, "Timeout": check.timeout_ns,
             "StartPeriod": check.start_period_ns, "StartInterval": check.start_interval_ns, "Retries": check.retries}
    return {key: value for key, value in shown.items() if value}


def mount_json(mount: MountPoint) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        shown["Name"] = mount.name
    shown |= {"Source": mount.source, "Destination": mount.target}
    if mount.driver:
        shown["Driver"] = mount.driver
    return {**shown, "Mode": mount.mode, "RW": mount.writable, "Propagation": mount.propagation}


# --- its networks ---


def network_settings(container: Container, sandbox: Sandbox | None, network_of: NetworkOf) -> dict[str, Any]:
    networks = networks_json(container, sandbox, network_of)
    bridge = networks.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": container.id if sandbox is not None else "",
        "SandboxKey": sandbox.netns if sandbox is not None else "",
        "Ports": ports_json(container, sandbox),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": bridge.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": bridge.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": bridge.get("IPv6Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": networks,
    }


def ports_json(container: Container, sandbox: Sandbox | None) -> dict[str, list[dict[str, str]] | None]:
    """The ports of a container that is up: where each is published, or None where it is only exposed."""
    if sandbox is None:
        return {}
    shown: dict[str, list[dict[str, str]] | None] = dict.fromkeys(container.config.exposed_ports)
    for port in sandbox.ports:
        key = f"{port.container_port}/{port.protocol}"
        shown[key] = [*(shown.get(key) or []), {"HostIp": _host_ip(port), "HostPort": str(port.host_port)}]
    return shown


def _host_ip(port: PublishedPort) -> str:
    return port.host_ip or "0.0.0.0"  # noqa: S104 - shown, not bound


def networks_json(container: Container, sandbox: Sandbox | None, network_of: NetworkOf) -> dict[str, Any]:
    """Each network by its name: as it is while the container is up, as it was asked for otherwise."""
    asked = {network_of(each.network): each for each in requested(container)}
    ends = {each.network_id: each for each in sandbox.endpoints} if sandbox is not None else {}
    shown = {name: _endpoint(network_id, wanted, ends.pop(network_id, None))
             for (network_id, name), wanted in asked.items()}
    for end in ends.values():
        shown[end.network_name] = _endpoint(end.network_id, EndpointRequest(network=end.network_name), end)
    return shown


def requested(container: Container) -> tuple[EndpointRequest, ...]:
    """The networks that a container is meant to be on, up or not."""
    host = container.host
    if host.endpoints:
        return host.endpoints
    if host.network_mode.startswith("container:"):
        return ()
    mode = "bridge" if host.network_mode in ("default", "") else host.network_mode
    return (EndpointRequest(network=mode),)


def _endpoint(network_id: str, wanted: EndpointRequest, end: EndpointInfo | None) -> dict[str, Any]:
    return {
        "IPAMConfig": _ipam_config(wanted),
        "Links": list(wanted.links),
        "Aliases": list(wanted.aliases) or None,  # docker-py asks for null, and dockerd has it
        "MacAddress": end.mac if end else wanted.mac,
        "DriverOpts": wanted.driver_opts or None,
        "GwPriority": wanted.gw_priority,
        "NetworkID": network_id,
        "EndpointID": end.endpoint_id if end else "",
        "Gateway": end.gateway if end else "",
        "IPAddress": end.address if end else "",
        "IPPrefixLen": end.prefix_length if end else 0,
        "IPv6Gateway": end.gateway6 if end else "",
        "GlobalIPv6Address": end.address6 if end else "",
        "GlobalIPv6PrefixLen": end.prefix_length6 if end else 0,
        "DNSNames": list(end.dns_names) if end else [],
    }


def _ipam_config(wanted: EndpointRequest) -> dict[str, Any] | None:
    if not (wanted.address or wanted.address6 or wanted.link_local):
        return None
    shown: dict[str, Any] = {"IPv4Address": wanted.address.partition("/")[0], "IPv6Address": wanted.address6,
                             "LinkLocalIPs": list(wanted.link_local)}
    return {key: value for key, value in shown.items() if value} or None
