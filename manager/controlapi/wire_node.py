"""Nodes on the wire. Pure."""

from __future__ import annotations

from typing import Any

from shoal.api.objects import Node
from shoal.api.specs import NodeSpec
from shoal.api.states import Availability, Role
from shoal.api.wire import Wire
from shoal.manager.controlapi.errors import invalid
from shoal.manager.controlapi.requests import rfc3339


class NodeSpecWire(Wire, frozen=True):
    """What a client leaves out stays as it is."""

    name: str | None = None
    labels: dict[str, str] | None = None
    role: str = ""
    availability: str = ""


class TLSInfoWire(Wire, frozen=True):
    """What every node trusts."""

    trust_root: str
    cert_issuer_subject: str
    cert_issuer_public_key: str


def node_spec(wire: NodeSpecWire, current: NodeSpec) -> NodeSpec:
    """What a client sent, over what is stored. Labels are replaced as a whole. Raises InvalidArgument."""
    if wire.role and wire.role not in tuple(Role):
        raise invalid(f'invalid Role: "{wire.role}"')
    if wire.availability and wire.availability not in tuple(Availability):
        raise invalid(f'invalid Availability: "{wire.availability}"')
    if any(not key for key in wire.labels or {}):
        raise invalid("a label needs a name")
    return NodeSpec(
        name=current.name if wire.name is None else wire.name,
        labels=wire.labels or {},
        role=Role(wire.role) if wire.role else current.role,
        availability=Availability(wire.availability) if wire.availability else current.availability,
    )


def node_json(node: Node, tls: TLSInfoWire, *, leader: bool, reachable: bool) -> dict[str, Any]:
    """A node as the API shows it."""
    described = node.description
    spec: dict[str, Any] = {
        "Labels": node.spec.labels,
        "Role": node.spec.role.value,
        "Availability": node.spec.availability.value,
    }
    if node.spec.name:
        spec["Name"] = node.spec.name
    engine: dict[str, Any] = {"EngineVersion": described.engine_version}
    if described.engine_labels:
        engine["Labels"] = described.engine_labels
    engine["Plugins"] = [{"Type": kind, "Name": name} for kind, name in described.plugins]
    resources: dict[str, Any] = {
        "NanoCPUs": described.resources.nano_cpus,
        "MemoryBytes": described.resources.memory_bytes,
    }
    if described.resources.generic:
        resources["GenericResources"] = [
            {"DiscreteResourceSpec": {"Kind": kind, "Value": value}}
            for kind, value in described.resources.generic.items()
        ]
    status: dict[str, Any] = {"State": node.status.state.value, "Addr": node.status.addr}
    if node.status.message:
        status["Message"] = node.status.message
    shown: dict[str, Any] = {
        "ID": node.id,
        "Version": {"Index": node.meta.version},
        "CreatedAt": rfc3339(node.meta.created_at),
        "UpdatedAt": rfc3339(node.meta.updated_at),
        "Spec": spec,
        "Description": {
            "Hostname": described.hostname,
            "Platform": {"Architecture": described.architecture, "OS": described.os},
            "Resources": resources,
            "Engine": engine,
            "TLSInfo": tls,
        },
        "Status": status,
    }
    if node.manager is not None:
        manager: dict[str, Any] = {"Leader": True} if leader else {}
        manager["Reachability"] = "reachable" if reachable else "unreachable"
        manager["Addr"] = node.manager.addr
        shown["ManagerStatus"] = manager
    return shown
