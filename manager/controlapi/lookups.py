"""From what a client calls an object to the record. Pure.

A full id wins, then a name, then an unambiguous prefix of an id; the messages are Docker's.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.api.errors import Unavailable
from shoal.api.ids import resolve
from shoal.api.objects import Cluster, Network, Node, Service, Task
from shoal.manager.controlapi.errors import not_found
from shoal.manager.store.state import State


def cluster_of(view: State) -> Cluster:
    """The swarm's record. Raises Unavailable on a manager that has not caught up."""
    if view.cluster is None:
        raise Unavailable("this manager has not caught up with the swarm yet: try again")
    return view.cluster


def find_service(view: State, reference: str) -> Service:
    """Raises NotFound and InvalidArgument (ambiguous)."""
    if reference in view.services:
        return view.services[reference]
    named = view.named("service", reference)
    if isinstance(named, Service):
        return named
    return view.services[resolve(reference, "service", _no_names(view.services))]


def find_network(view: State, reference: str) -> Network:
    """Raises NotFound and InvalidArgument (ambiguous)."""
    if reference in view.networks:
        return view.networks[reference]
    named = view.named("network", reference)
    if isinstance(named, Network):
        return named
    return view.networks[resolve(reference, "network", _no_names(view.networks))]


def find_node(view: State, reference: str, self_id: str) -> Node:
    """By id, "self", hostname (of several nodes: ambiguous), the name it was given, or prefix. Raises NotFound and
    InvalidArgument."""
    if reference == "self":
        reference = self_id
    if reference in view.nodes:
        return view.nodes[reference]
    hostnames = [(node.id, node.description.hostname) for node in view.nodes.values()]
    given = [(node.id, node.spec.name) for node in view.nodes.values() if node.spec.name == reference]
    named_so = any(name == reference for _, name in hostnames)
    return view.nodes[resolve(reference, "node", hostnames if named_so or not given else given)]


def find_task(view: State, reference: str) -> Task:
    """By id or prefix of one. Raises NotFound and InvalidArgument (ambiguous)."""
    if reference in view.tasks:
        return view.tasks[reference]
    if not reference:
        raise not_found("task", reference)
    return view.tasks[resolve(reference, "task", _no_names(view.tasks))]


def _no_names(ids: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((object_id, object_id) for object_id in ids)
