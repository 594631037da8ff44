"""Services on the wire: `ServiceSpec` both ways, `Service` as it is shown. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import field

from shoal.api.errors import NotImplementedHere
from shoal.api.objects import Service
from shoal.api.specs import EndpointSpec, PortConfig, ServiceMode, ServiceSpec, UpdateConfig
from shoal.api.wire import Wire
from shoal.manager.controlapi.errors import invalid
from shoal.manager.controlapi.requests import rfc3339
from shoal.manager.controlapi.wire_task import AttachmentWire, TaskSpecWire, port_json, task_spec, task_spec_wire

MAX_NAME = 63
MAX_REPLICAS = 1_000_000
_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_PORT_PROTOCOLS = ("tcp", "udp")


class ReplicatedWire(Wire, frozen=True, omit_defaults=True):
    replicas: int | None = None


class EmptyWire(Wire, frozen=True):
    pass


class ModeWire(Wire, frozen=True, omit_defaults=True):
    replicated: ReplicatedWire | None = None
    global_: EmptyWire | None = field(name="Global", default=None)
    replicated_job: Any = None
    global_job: Any = None


class UpdateWire(Wire, frozen=True):
    """Every field but the delay is always shown, as Docker shows it."""

    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = 0.0
    order: str = ""


class PortWire(Wire, frozen=True, omit_defaults=True):
    name: str = ""
    protocol: str = ""
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = ""


class EndpointWire(Wire, frozen=True, omit_defaults=True):
    mode: str = ""
    ports: tuple[PortWire, ...] = ()


class ServiceSpecWire(Wire, frozen=True, omit_defaults=True):
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    task_template: TaskSpecWire | None = None
    mode: ModeWire | None = None
    update_config: UpdateWire | None = None
    rollback_config: UpdateWire | None = None
    networks: tuple[AttachmentWire, ...] = ()
    endpoint_spec: EndpointWire | None = None


def service_spec(wire: ServiceSpecWire, version: tuple[int, int]) -> ServiceSpec:
    """What a client sent, as it is stored; networks still as the client named them.

    Raises InvalidArgument and NotImplementedHere, naming the field.
    """
    if not wire.name:
        raise invalid("meta: name must be provided")
    if len(wire.name) > MAX_NAME or not _NAME.fullmatch(wire.name):
        raise invalid("name must be valid as a DNS name component")
    template = wire.task_template or TaskSpecWire()
    if not template.networks and wire.networks:  # where clients before 1.44 put them
        template = msgspec.structs.replace(template, networks=wire.networks)
    return ServiceSpec(
        name=wire.name,
        labels=wire.labels,
        task=task_spec(template, version),
        mode=_mode(wire.mode or ModeWire()),
        update=_update(wire.update_config, "update", ("pause", "continue", "rollback")),
        rollback=_update(wire.rollback_config, "rollback", ("pause", "continue")),
        endpoint=_endpoint(wire.endpoint_spec or EndpointWire()),
    )


def service_spec_wire(spec: ServiceSpec, insert_defaults: bool = False) -> ServiceSpecWire:
    """What is stored, as a client reads it and sends it back."""
    if spec.mode.kind == "global":
        mode = ModeWire(global_=EmptyWire())
    else:
        mode = ModeWire(replicated=ReplicatedWire(replicas=spec.mode.replicas))
    return ServiceSpecWire(
        name=spec.name,
        labels=spec.labels,
        task_template=task_spec_wire(spec.task, insert_defaults),
        mode=mode,
        update_config=_update_wire(spec.update, insert_defaults),
        rollback_config=_update_wire(spec.rollback, insert_defaults),
        endpoint_spec=_endpoint_wire(spec.endpoint),
    )


def service_json(
    service: Service, status: dict[str, int] | None = None, insert_defaults: bool = False
) -> dict[str, Any]:
    """A service as the API shows it; `status` where the client asked for it."""
    spec = msgspec.to_builtins(service_spec_wire(service.spec, insert_defaults))
    spec.setdefault("Labels", {})
    shown: dict[str, Any] = {
        "ID": service.id,
        "Version": {"Index": service.meta.version},
        "CreatedAt": rfc3339(service.meta.created_at),
        "UpdatedAt": rfc3339(service.meta.updated_at),
        "Spec": spec,
    }
    if service.previous_spec is not None:
        previous = msgspec.to_builtins(service_spec_wire(service.previous_spec))
        previous.setdefault("Labels", {})
        shown["PreviousSpec"] = previous
    shown["Endpoint"] = _endpoint_json(service)
    if service.update_status is not None:
        update = service.update_status
        shown["UpdateStatus"] = {
            "State": update.state,
            "StartedAt": rfc3339(update.started_at or service.meta.updated_at),
            "Message": update.message,
        }
        if update.state.endswith("completed"):
            shown["UpdateStatus"]["CompletedAt"] = rfc3339(update.completed_at or service.meta.updated_at)
    if status is not None:
        shown["ServiceStatus"] = status
    return shown


def _endpoint_json(service: Service) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"Spec": _endpoint_wire(service.spec.endpoint)}
    ports = service.endpoint.ports or service.spec.endpoint.ports
    if ports:
        endpoint["Ports"] = [port_json(port) for port in ports]
    if service.endpoint.virtual_ips:
        endpoint["VirtualIPs"] = [
            {"NetworkID": vip.network_id, "Addr": vip.addr} for vip in service.endpoint.virtual_ips
        ]
    return endpoint


def _mode(wire: ModeWire) -> ServiceMode:
    if wire.replicated_job is not None or wire.global_job is not None:
        raise NotImplementedHere("job modes are not supported yet: use replicated or global")
    if wire.replicated is not None and wire.global_ is not None:
        raise invalid("must specify only one service mode")
    if wire.global_ is not None:
        return ServiceMode(kind="global")
    replicas = wire.replicated.replicas if wire.replicated is not None else None
    if replicas is not None and not 0 <= replicas <= MAX_REPLICAS:
        raise invalid(f"Replicas: {replicas} is not a number from 0 to {MAX_REPLICAS}")
    return ServiceMode(replicas=1 if replicas is None else replicas)


def _update(wire: UpdateWire | None, word: str, actions: tuple[str, ...]) -> UpdateConfig | None:
    if wire is None:
        return None
    if wire.failure_action and wire.failure_action not in actions:
        raise invalid(f'unrecognized {word} failure action "{wire.failure_action}": use one of {", ".join(actions)}')
    if wire.order not in ("", "stop-first", "start-first"):
        raise invalid(f'unrecognized {word} order "{wire.order}": use stop-first or start-first')
    for name, value in (("parallelism", wire.parallelism), ("delay", wire.delay), ("monitor", wire.monitor)):
        if not 0 <= value < 1 << 63:
            raise invalid(f"TaskSpec: {word}-{name} cannot be negative")
    if not 0 <= wire.max_failure_ratio <= 1:
        raise invalid(f"TaskSpec: {word}-maxfailureratio cannot be less than 0 or bigger than 1")
    default = UpdateConfig()
    return UpdateConfig(
        parallelism=wire.parallelism,
        delay_ns=wire.delay,
        failure_action=wire.failure_action or default.failure_action,
        monitor_ns=wire.monitor or default.monitor_ns,
        max_failure_ratio=wire.max_failure_ratio,
        order=wire.order or default.order,
    )


def _update_wire(config: UpdateConfig | None, insert_defaults: bool) -> UpdateWire | None:
    if config is None:
        if not insert_defaults:
            return None
        config = UpdateConfig()
    return UpdateWire(
        parallelism=config.parallelism,
        delay=config.delay_ns,
        failure_action=config.failure_action,
        monitor=config.monitor_ns,
        max_failure_ratio=config.max_failure_ratio,
        order=config.order,
    )


def _endpoint(wire: EndpointWire) -> EndpointSpec:
    if wire.mode not in ("", "vip", "dnsrr"):
        raise invalid(f'invalid resolution mode: "{wire.mode}"')
    ports: list[PortConfig] = []
    seen: set[tuple[str, int]] = set()
    for each in wire.ports:
        port = _port(each, wire.mode)
        key = (port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise invalid(f"EndpointSpec: duplicate published ports provided ({port.published_port}/{port.protocol})")
        seen.add(key)
        ports.append(port)
    return EndpointSpec(mode=wire.mode or "vip", ports=tuple(ports))


def _port(wire: PortWire, mode: str) -> PortConfig:
    protocol, publish_mode = wire.protocol or "tcp", wire.publish_mode or "ingress"
    if publish_mode not in ("ingress", "host"):
        raise invalid(f'invalid publish mode: "{publish_mode}"')
    if protocol == "sctp":
        raise NotImplementedHere("publishing SCTP ports is not supported: use tcp or udp")
    if protocol not in _PORT_PROTOCOLS:
        raise invalid(f'invalid protocol value "{protocol}"')
    if not 1 <= wire.target_port <= 65535:
        raise invalid(f"EndpointSpec: target port {wire.target_port} is not a number from 1 to 65535")
    if not 0 <= wire.published_port <= 65535:
        raise invalid(f"EndpointSpec: published port {wire.published_port} is not a number from 0 to 65535")
    if publish_mode == "ingress":
        if mode == "dnsrr":
            raise invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        raise NotImplementedHere(
            "publishing a port on every node (mode=ingress) is not supported yet: use "
            f"mode=host,target={wire.target_port},published={wire.published_port or wire.target_port}"
        )
    return PortConfig(
        name=wire.name,
        protocol=protocol,
        target_port=wire.target_port,
        published_port=wire.published_port,
        publish_mode=publish_mode,
    )


def _endpoint_wire(endpoint: EndpointSpec) -> EndpointWire:
    return EndpointWire(
        mode=endpoint.mode,
        ports=tuple(
            PortWire(
                name=port.name,
                protocol=port.protocol,
                target_port=port.target_port,
                published_port=port.published_port,
                publish_mode=port.publish_mode,
            )
            for port in endpoint.ports
        ),
    )


