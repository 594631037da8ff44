"""Placement constraints: `node.labels.zone == a`, `node.role != manager`. Pure.

Keys and values are compared without regard to case, labels' keys with it.
Source of the grammar: SwarmKit, manager/constraint.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.objects import Node

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)
_ATTRIBUTES = ("node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "i386": "386"}


class Constraint(msgspec.Struct, frozen=True):
    """One expression, parsed."""

    key: str
    equal: bool  # ==, else !=
    value: str


def parse_constraints(expressions: Sequence[str]) -> tuple[Constraint, ...]:
    """Parse what the user wrote. Raises InvalidArgument naming the expression and what is wrong with it."""
    return tuple(_parse(expression) for expression in expressions)


def _parse(expression: str) -> Constraint:
    for operator in ("==", "!="):
        key, found, value = expression.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"constraint {expression!r}: key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise InvalidArgument(f"constraint {expression!r}: value '{value}' is invalid")
        _check_key(expression, key, value)
        return Constraint(key, operator == "==", value)
    raise InvalidArgument(f"constraint {expression!r}: expected one operator from ==, !=")


def _check_key(expression: str, key: str, value: str) -> None:
    lowered = key.lower()
    if lowered.startswith((NODE_LABEL, ENGINE_LABEL)):
        return
    if lowered not in _ATTRIBUTES:
        known = ", ".join((*_ATTRIBUTES, "node.labels.KEY", "engine.labels.KEY"))
        raise InvalidArgument(f"constraint {expression!r}: key '{key}' is unknown, use one of {known}")
    if lowered == "node.ip" and _network(value) is None:
        raise InvalidArgument(f"constraint {expression!r}: '{value}' is no IP address or network")


@functools.lru_cache(maxsize=4096)
def _parsed(expressions: tuple[str, ...]) -> tuple[Constraint, ...] | None:
    """None where what is stored does not parse: then no node satisfies it."""
    try:
        return parse_constraints(expressions)
    except InvalidArgument:
        return None


def node_satisfies(expressions: tuple[str, ...], node: Node) -> bool:
    """Whether a node satisfies every expression. What does not parse is satisfied by none."""
    if not expressions:
        return True
    constraints = _parsed(expressions)
    return constraints is not None and all(_matches(constraint, node) for constraint in constraints)


def _matches(constraint: Constraint, node: Node) -> bool:
    if constraint.key.lower() == "node.ip":
        return _ip_within(constraint.value, node.status.addr) == constraint.equal
    return (attribute(constraint.key, node).lower() == constraint.value.lower()) == constraint.equal


def is_label(key: str) -> bool:
    """Whether it names a label of the node or of its engine: nothing else is spread over."""
    return key.lower().startswith((NODE_LABEL, ENGINE_LABEL))


def attribute(key: str, node: Node) -> str:
    """What a node has under a constraint's or preference's key; "" where it has nothing."""
    lowered = key.lower()
    if lowered.startswith(NODE_LABEL):
        return node.spec.labels.get(key[len(NODE_LABEL) :], "")
    if lowered.startswith(ENGINE_LABEL):
        return node.description.engine_labels.get(key[len(ENGINE_LABEL) :], "")
    match lowered:
        case "node.id":
            return node.id
        case "node.hostname":
            return node.description.hostname
        case "node.ip":
            return node.status.addr
        case "node.role":
            return node.role.value
        case "node.platform.os":
            return node.description.os
        case "node.platform.arch":
            return node.description.architecture
        case _:
            return ""


def normal_architecture(name: str) -> str:
    """One name for each architecture: images say amd64 where kernels say x86_64."""
    return _ARCHITECTURES.get(name.lower(), name.lower())


@functools.lru_cache(maxsize=1024)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _ip_within(text: str, address: str) -> bool:
    network = _network(text)
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return network is not None and ip.version == network.version and ip in network
