"""From a task to the container that it means. Pure.

Names, labels and templates are those that `docker service create` documents;
source: SwarmKit, template/ and agent/exec/dockerapi/container.go.
"""

from __future__ import annotations

import re

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.objects import NodeDescription, Task
from shoal.api.sandbox import EndpointRequest, PublishedPort
from shoal.api.specs import NODE_LOCAL, ContainerSpec, HealthCheck, LogDriver, Mount, PullOptions, Resources

TASK_ID = "com.docker.swarm.task.id"
"""The label by which a task's container is found again."""

_TEMPLATE = re.compile(r"\{\{\s*\.([A-Za-z.]+)\s*\}\}")
_BRACES = re.compile(r"\{\{|\}\}")


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A container to make. `network_mode`: as in `SandboxRequest.mode`."""

    name: str
    image: str
    pull_options: PullOptions | None = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    init: bool | None = None
    mounts: tuple[Mount, ...] = ()
    hosts: tuple[str, ...] = ()  # "name:address"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_grace_s: float = 10.0
    health_check: HealthCheck | None = None
    limits: Resources = Resources()
    memory_reservation_bytes: int = 0
    log_driver: LogDriver | None = None
    network_mode: str = "networks"
    endpoints: tuple[EndpointRequest, ...] = ()
    ports: tuple[PublishedPort, ...] = ()


def plan(task: Task, node_id: str, node: NodeDescription) -> ContainerPlan:
    """The container of a task on this node. Raises InvalidArgument for a template that means nothing."""
    spec = task.spec.container
    if spec is None:
        raise InvalidArgument(f"task {task.id} has no container")
    values = _values(task, spec, node_id, node)
    mode, endpoints = _network(task)
    return ContainerPlan(
        name=task.name,
        image=spec.image,
        pull_options=spec.pull_options,
        entrypoint=spec.command,
        command=spec.args,
        env=tuple(fill(each, values) for each in spec.env),
        working_dir=spec.dir,
        user=spec.user,
        groups=spec.groups,
        hostname=fill(spec.hostname, values),
        labels={**spec.labels, **labels(task, node_id)},
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        read_only=spec.read_only,
        init=spec.init,
        mounts=tuple(_mount(each, values) for each in spec.mounts),
        hosts=tuple(name_first(each) for each in spec.hosts),
        dns=spec.dns_nameservers,
        dns_search=spec.dns_search,
        dns_options=spec.dns_options,
        sysctls=spec.sysctls,
        capability_add=spec.capability_add,
        capability_drop=spec.capability_drop,
        stop_signal=spec.stop_signal,
        stop_grace_s=spec.stop_grace_period_ns / 1e9,
        health_check=spec.health_check,
        limits=task.spec.resources.limits,
        memory_reservation_bytes=task.spec.resources.reservations.memory_bytes,
        log_driver=task.spec.log_driver,
        network_mode=mode,
        endpoints=endpoints,
        ports=tuple(PublishedPort(container_port=port.target_port, protocol=port.protocol,
                                  host_port=port.published_port) for port in task.ports),
    )


def labels(task: Task, node_id: str) -> dict[str, str]:
    """What every client looks for on a task's container."""
    return {
        "com.docker.swarm.node.id": node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        "com.docker.swarm.task": "",
        TASK_ID: task.id,
        "com.docker.swarm.task.name": task.name,
    }


def fill(text: str, values: dict[str, str]) -> str:
    """`text` with its templates filled in. Raises InvalidArgument for one that is not known."""
    if "{{" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        if found[1] in values:
            return values[found[1]]
        kind, _, label = found[1].rpartition(".")
        if kind in ("Service.Labels", "Node.Labels"):
            return values.get(f"{kind}.{label}", "")
        raise InvalidArgument(f"expanding {text!r} failed: there is no .{found[1]}")

    filled = _TEMPLATE.sub(value, text)
    if _BRACES.search(_TEMPLATE.sub("", text)):
        raise InvalidArgument(f"expanding {text!r} failed: only plain fields can be expanded")
    return filled


def name_first(entry: str) -> str:
    """A line of `hosts`: "address name…" (as services store it) becomes "name:address"."""
    parts = entry.split()
    return f"{parts[1]}:{parts[0]}" if len(parts) >= 2 else entry


def _values(task: Task, spec: ContainerSpec, node_id: str, node: NodeDescription) -> dict[str, str]:
    return {
        "Service.ID": task.service_id,
        "Service.Name": task.service_name,
        **{f"Node.Labels.{key}": value for key, value in node.engine_labels.items()},
        "Node.ID": node_id,
        "Node.Hostname": node.hostname,
        "Node.Platform.OS": node.os,
        "Node.Platform.Architecture": node.architecture,
        "Task.ID": task.id,
        "Task.Name": task.name,
        "Task.Slot": str(task.slot or node_id),
    }


def _mount(mount: Mount, values: dict[str, str]) -> Mount:
    if "{{" not in mount.source + mount.target:
        return mount
    return msgspec.structs.replace(
        mount, source=fill(mount.source, values), target=fill(mount.target, values))


def _network(task: Task) -> tuple[str, tuple[EndpointRequest, ...]]:
    """The sandbox's mode and endpoints. Aliases: the service's name is the VIP's, hence not among them."""
    if task.attachments:
        return "networks", tuple(
            EndpointRequest(network=one.network_id, aliases=one.aliases, mac=one.mac,
                            address=one.addresses[0] if one.addresses else "")
            for one in task.attachments)
    local = [one.target for one in task.spec.networks if one.target in NODE_LOCAL]
    return ("host" if "host" in local else "networks"), ()
