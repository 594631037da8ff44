"""Which changes in the store are events of the Docker API, and what they say."""

import msgspec
import pytest

from shoal.api.objects import Meta, Network, Service, Task, UpdateStatus
from shoal.api.specs import ContainerSpec, NetworkSpec, ServiceMode, ServiceSpec, TaskSpec
from shoal.api.states import Availability, NodeState, Role
from shoal.manager.controlapi.events import shown_as
from shoal.manager.store.apply import Event
from tests.unit.manager.controlapi_store import WORKER, node

replace = msgspec.structs.replace
SERVICE = Service(id="s" * 25, spec=ServiceSpec(
    name="web", task=TaskSpec(container=ContainerSpec(image="busybox:1")), mode=ServiceMode(replicas=2)))
NODE = node(WORKER)


def change(old, new):
    return Event(table="", id=(new or old).id, old=old, new=new)


def test_what_is_made_and_removed_is_named():
    made = shown_as(change(None, SERVICE))
    assert (made.type, made.action, made.id, made.attributes) == ("service", "create", "s" * 25, {"name": "web"})
    gone = shown_as(change(NODE, None))
    assert (gone.type, gone.action, gone.attributes) == ("node", "remove", {"name": "host-w"})
    network = Network(id="n" * 25, spec=NetworkSpec(name="shop"))
    assert shown_as(change(None, network)).type == "network"


@pytest.mark.parametrize(("new", "told"), [
    (replace(SERVICE, spec=replace(SERVICE.spec, mode=ServiceMode(replicas=5))),
     {"replicas.old": "2", "replicas.new": "5"}),
    (replace(SERVICE, spec=replace(SERVICE.spec, task=TaskSpec(container=ContainerSpec(image="busybox:2")))),
     {"image.old": "busybox:1", "image.new": "busybox:2"}),
    (replace(SERVICE, update_status=UpdateStatus(state="updating")), {"updatestate.new": "updating"}),
    (replace(SERVICE, spec=replace(SERVICE.spec, labels={"a": "b"})), {}),
])
def test_an_update_of_a_service_says_what_changed(new, told):
    event = shown_as(change(SERVICE, new))
    assert (event.action, event.attributes) == ("update", {"name": "web", **told})


def test_states_of_an_update_follow_each_other():
    old, new = (replace(SERVICE, update_status=UpdateStatus(state=state)) for state in ("updating", "completed"))
    assert shown_as(change(old, new)).attributes == {
        "name": "web", "updatestate.old": "updating", "updatestate.new": "completed"}


def test_an_update_of_a_node_says_what_changed():
    new = replace(NODE, role=Role.MANAGER, spec=replace(NODE.spec, availability=Availability.DRAIN),
                  status=replace(NODE.status, state=NodeState.DOWN))
    told = shown_as(change(replace(NODE, status=replace(NODE.status, state=NodeState.READY)), new)).attributes
    assert told == {"name": "host-w", "availability.old": "active", "availability.new": "drain",
                    "role.old": "worker", "role.new": "manager", "state.old": "ready", "state.new": "down"}


@pytest.mark.parametrize(("old", "new"), [
    (None, Task(id="t" * 25, service_id="s" * 25, spec=TaskSpec())),  # tasks have no events
    (SERVICE, replace(SERVICE, meta=Meta(version=9, updated_at=5.0))),  # only counted anew
])
def test_the_rest_is_not_told(old, new):
    assert shown_as(change(old, new)) is None
