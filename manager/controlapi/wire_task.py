"""Tasks on the wire: `TaskSpec` both ways, `Task` as it is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import field

from shoal.api.errors import NotImplementedHere
from shoal.api.objects import Network, Task
from shoal.api.specs import (
    LogDriver,
    NetworkAttachmentSpec,
    Placement,
    Platform,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    TaskSpec,
)
from shoal.api.wire import Wire
from shoal.manager.controlapi.errors import invalid
from shoal.manager.controlapi.requests import rfc3339
from shoal.manager.controlapi.wire_container import (
    ContainerWire,
    DriverWire,
    container_spec,
    container_wire,
    refuse_unsupported,
)
from shoal.manager.controlapi.wire_network import swarm_form
from shoal.manager.scheduler.constraints import parse_constraints

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 << 20
CONDITIONS = ("none", "on-failure", "any")


class DiscreteWire(Wire, frozen=True, omit_defaults=True):
    kind: str = ""
    value: int = 0


class GenericWire(Wire, frozen=True, omit_defaults=True):
    discrete_resource_spec: DiscreteWire | None = None
    named_resource_spec: Any = None


class ResourcesWire(Wire, frozen=True, omit_defaults=True):
    nano_cpus: int = field(name="NanoCPUs", default=0)
    memory_bytes: int = 0
    pids: int = 0
    generic_resources: tuple[GenericWire, ...] = ()


class RequirementsWire(Wire, frozen=True):
    limits: ResourcesWire = ResourcesWire()
    reservations: ResourcesWire = ResourcesWire()
    swap_bytes: int | msgspec.UnsetType | None = msgspec.UNSET
    memory_swappiness: int | msgspec.UnsetType | None = msgspec.UNSET


class RestartWire(Wire, frozen=True, omit_defaults=True):
    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadWire(Wire, frozen=True, omit_defaults=True):
    spread_descriptor: str = ""


class PreferenceWire(Wire, frozen=True, omit_defaults=True):
    spread: SpreadWire | None = None


class PlatformWire(Wire, frozen=True, omit_defaults=True):
    architecture: str = ""
    os: str = field(name="OS", default="")


class PlacementWire(Wire, frozen=True, omit_defaults=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[PreferenceWire, ...] = ()
    max_replicas: int = 0
    platforms: tuple[PlatformWire, ...] = ()


class AttachmentWire(Wire, frozen=True, omit_defaults=True):
    target: str = ""
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = field(default_factory=dict)


class ContainerRefWire(Wire, frozen=True, omit_defaults=True):
    container_id: str = field(name="ContainerID", default="")


class TaskSpecWire(Wire, frozen=True, omit_defaults=True):
    container_spec: ContainerWire | None = None
    plugin_spec: Any = None
    network_attachment_spec: ContainerRefWire | None = None
    resources: RequirementsWire | None = None
    restart_policy: RestartWire | None = None
    placement: PlacementWire | None = None
    networks: tuple[AttachmentWire, ...] = ()
    log_driver: DriverWire | None = None
    force_update: int | None = None
    runtime: str = ""


def task_spec(wire: TaskSpecWire, version: tuple[int, int]) -> TaskSpec:
    """What a client sent, as it is stored; networks still as the client named them.

    Raises InvalidArgument and NotImplementedHere.
    """
    refuse_unsupported(wire, {"plugin_spec": "TaskTemplate.PluginSpec"})
    if wire.runtime not in ("", "container"):
        raise NotImplementedHere(f"Runtime {wire.runtime!r} is not supported: only 'container' is")
    if wire.network_attachment_spec is not None:
        raise invalid("TaskSpec: NetworkAttachmentSpec is made by the swarm itself")
    if wire.container_spec is None:
        raise invalid("TaskSpec: missing runtime")
    driver = wire.log_driver
    if wire.force_update is not None and not 0 <= wire.force_update < 1 << 63:
        raise invalid("TaskSpec: ForceUpdate is out of range")
    return TaskSpec(
        container=container_spec(wire.container_spec, version),
        resources=_requirements(wire.resources or RequirementsWire(), version),
        restart=_restart(wire.restart_policy or RestartWire()),
        placement=_placement(wire.placement or PlacementWire()),
        networks=tuple(_attachment(each) for each in wire.networks),
        log_driver=None if driver is None else LogDriver(name=driver.name, options=driver.options),
        force_update=wire.force_update or 0,
    )


def task_spec_wire(spec: TaskSpec, insert_defaults: bool = False) -> TaskSpecWire:
    """What is stored, as a client reads it. Defaults that nobody asked for show only where they are wanted."""
    restart, driver = spec.restart, spec.log_driver
    return TaskSpecWire(
        container_spec=None if spec.container is None else container_wire(spec.container, insert_defaults),
        network_attachment_spec=None if spec.attachment is None else ContainerRefWire(container_id=spec.attachment),
        resources=RequirementsWire(
            limits=_resources_wire(spec.resources.limits), reservations=_resources_wire(spec.resources.reservations)
        ),
        restart_policy=RestartWire(
            condition=restart.condition,
            delay=restart.delay_ns,
            max_attempts=restart.max_attempts,
            window=restart.window_ns,
        )
        if insert_defaults or restart != RestartPolicy()
        else None,
        placement=_placement_wire(spec.placement),
        networks=tuple(
            AttachmentWire(target=each.target, aliases=each.aliases, driver_opts=each.driver_opts)
            for each in spec.networks
        ),
        log_driver=None if driver is None else DriverWire(name=driver.name, options=driver.options),
        force_update=spec.force_update,
        runtime="container" if spec.container is not None else "attachment",
    )


class TaskRenderer:
    """Tasks as the API shows them. What many tasks share is rendered once.

    One is made for each answer; the records that it is given are frozen.
    """

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self._stored = networks
        self._networks: dict[str, msgspec.Raw] = {}
        self._specs: dict[tuple[str, int], tuple[TaskSpec, msgspec.Raw]] = {}

    def render(self, task: Task) -> dict[str, Any]:
        """One task, ready to be encoded as JSON."""
        shown: dict[str, Any] = {
            "ID": task.id,
            "Version": {"Index": task.meta.version},
            "CreatedAt": rfc3339(task.meta.created_at),
            "UpdatedAt": rfc3339(max(task.meta.updated_at, task.status.timestamp)),
            "Labels": {},
            "Spec": self._spec(task),
            "ServiceID": task.service_id,
        }
        if task.slot:
            shown["Slot"] = task.slot
        if task.node_id:
            shown["NodeID"] = task.node_id
        shown["Status"] = _status(task)
        shown["DesiredState"] = task.desired.word
        if task.attachments:
            shown["NetworksAttachments"] = [
                {"Network": self._network(each.network_id), "Addresses": each.addresses}
                for each in task.attachments
                if each.network_id in self._stored
            ]
        return shown

    def _spec(self, task: Task) -> msgspec.Raw:
        key = (task.service_id, task.spec_version)
        known = self._specs.get(key)
        if known is not None and (known[0] is task.spec or known[0] == task.spec):
            return known[1]
        raw = msgspec.Raw(msgspec.json.encode(task_spec_wire(task.spec)))
        self._specs[key] = (task.spec, raw)
        return raw

    def _network(self, network_id: str) -> msgspec.Raw:
        if network_id not in self._networks:
            self._networks[network_id] = msgspec.Raw(msgspec.json.encode(swarm_form(self._stored[network_id])))
        return self._networks[network_id]


def _status(task: Task) -> dict[str, Any]:
    status: dict[str, Any] = {
        "Timestamp": rfc3339(task.status.timestamp or task.meta.created_at),
        "State": task.status.state.word,
        "Message": task.status.message,
    }
    if task.status.err:
        status["Err"] = task.status.err
    if task.status.container is not None:
        status["ContainerStatus"] = {
            "ContainerID": task.status.container.container_id,
            "PID": task.status.container.pid,
            "ExitCode": task.status.container.exit_code,
        }
    status["PortStatus"] = {"Ports": [port_json(port) for port in task.ports]} if task.ports else {}
    return status


def port_json(port: Any) -> dict[str, Any]:
    """One published port, of a service or a task."""
    shown = {
        "Name": port.name,
        "Protocol": port.protocol,
        "TargetPort": port.target_port,
        "PublishedPort": port.published_port,
        "PublishMode": port.publish_mode,
    }
    return {key: value for key, value in shown.items() if value}


def _requirements(wire: RequirementsWire, version: tuple[int, int]) -> ResourceRequirements:
    if wire.swap_bytes or wire.memory_swappiness not in (msgspec.UNSET, None, -1):
        raise NotImplementedHere("Resources.SwapBytes and MemorySwappiness are not supported: leave them out")
    limits = _resources(wire.limits, "limit")
    if version < (1, 41):
        limits = msgspec.structs.replace(limits, pids=0)
    reservations = _resources(wire.reservations, "reservation")
    if reservations.pids or limits.generic:
        raise invalid("Resources: Pids can only be limited, generic resources only be reserved")
    return ResourceRequirements(limits=limits, reservations=reservations)


def _resources(wire: ResourcesWire, word: str) -> Resources:
    if wire.nano_cpus and wire.nano_cpus < MIN_NANO_CPUS:
        raise invalid(f"invalid cpu value {wire.nano_cpus / 1e9:g}: Must be at least {MIN_NANO_CPUS / 1e9:g}")
    if wire.memory_bytes and wire.memory_bytes < MIN_MEMORY_BYTES:
        raise invalid(f"invalid memory value {wire.memory_bytes}: Must be at least 4MiB")
    if wire.pids < 0:
        raise invalid(f"invalid pids value {wire.pids}: it cannot be negative")
    if max(wire.nano_cpus, wire.memory_bytes, wire.pids) >= 1 << 63:
        raise invalid(f"Resources: a {word} is out of range")
    generic: dict[str, int] = {}
    for each in wire.generic_resources:
        discrete = each.discrete_resource_spec
        if discrete is None or each.named_resource_spec is not None:
            raise NotImplementedHere("named generic resources are not supported: reserve a number of a kind")
        if not discrete.kind or discrete.value <= 0 or discrete.kind in generic:
            raise invalid(f"invalid generic resource {discrete.kind!r}: a kind once, and a positive number")
        generic[discrete.kind] = discrete.value
    return Resources(nano_cpus=wire.nano_cpus, memory_bytes=wire.memory_bytes, pids=wire.pids, generic=generic)


def _resources_wire(resources: Resources) -> ResourcesWire:
    return ResourcesWire(
        nano_cpus=resources.nano_cpus,
        memory_bytes=resources.memory_bytes,
        pids=resources.pids,
        generic_resources=tuple(
            GenericWire(discrete_resource_spec=DiscreteWire(kind=kind, value=value))
            for kind, value in resources.generic.items()
        ),
    )


def _restart(wire: RestartWire) -> RestartPolicy:
    default = RestartPolicy()
    if wire.condition and wire.condition not in CONDITIONS:
        raise invalid(f'invalid RestartCondition: "{wire.condition}"')
    for word, value in (("delay", wire.delay), ("max-attempts", wire.max_attempts), ("window", wire.window)):
        if value is not None and not 0 <= value < 1 << 63:
            raise invalid(f"TaskSpec: restart-{word} cannot be negative")
    return RestartPolicy(
        condition=wire.condition or default.condition,
        delay_ns=default.delay_ns if wire.delay is None else wire.delay,
        max_attempts=wire.max_attempts or 0,
        window_ns=wire.window,
    )


def _placement(wire: PlacementWire) -> Placement:
    parse_constraints(wire.constraints)
    preferences = [each.spread.spread_descriptor for each in wire.preferences if each.spread is not None]
    if wire.max_replicas < 0:
        raise invalid("Placement: MaxReplicas cannot be negative")
    return Placement(
        constraints=wire.constraints,
        preferences=tuple(preferences),
        max_replicas=wire.max_replicas,
        platforms=tuple(Platform(architecture=each.architecture, os=each.os) for each in wire.platforms),
    )


def _placement_wire(placement: Placement) -> PlacementWire:
    return PlacementWire(
        constraints=placement.constraints,
        preferences=tuple(PreferenceWire(spread=SpreadWire(spread_descriptor=each)) for each in placement.preferences),
        max_replicas=placement.max_replicas,
        platforms=tuple(PlatformWire(architecture=each.architecture, os=each.os) for each in placement.platforms),
    )


def _attachment(wire: AttachmentWire) -> NetworkAttachmentSpec:
    if not wire.target:
        raise invalid("Networks: a target network has to be named")
    return NetworkAttachmentSpec(target=wire.target, aliases=wire.aliases, driver_opts=wire.driver_opts)
