"""The container that a task means, and the executor on an engine of entries in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

import msgspec
import pytest

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.objects import NetworkAttachment, NodeDescription, Task
from shoal.api.sandbox import EndpointRequest
from shoal.api.specs import (
    ContainerSpec,
    Mount,
    NetworkAttachmentSpec,
    PortConfig,
    ResourceRequirements,
    Resources,
    TaskSpec,
)
from shoal.worker.containerplan import TASK_ID, ContainerPlan, fill, plan
from shoal.worker.engine_executor import EngineExecutor
from shoal.worker.executor import LogQuery
from shoal.worker.taskmachine import Phase, Seen

NODE = NodeDescription(hostname="h1")


def task(**container: object) -> Task:
    return Task(id="t" * 25, service_id="s1", service_name="web", slot=3, node_id="n1",
                spec=TaskSpec(container=ContainerSpec(image="web:1", **container)))  # type: ignore[arg-type]


def test_names_and_labels_are_dockers() -> None:
    made = plan(task(labels={"a": "b"}), "n1", NODE)
    assert made.name == f"web.3.{'t' * 25}"
    assert made.labels == {
        "a": "b",
        "com.docker.swarm.node.id": "n1",
        "com.docker.swarm.service.id": "s1",
        "com.docker.swarm.service.name": "web",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "t" * 25,
        "com.docker.swarm.task.name": f"web.3.{'t' * 25}",
    }


def test_templates() -> None:
    made = plan(task(env=("A={{.Node.Hostname}}-{{ .Task.Slot }}", "B=plain"), hostname="{{.Service.Name}}",
                     mounts=(Mount(source="data-{{.Task.Slot}}", target="/d", type="volume"),)), "n1", NODE)
    assert made.env == ("A=h1-3", "B=plain")
    assert made.hostname == "web"
    assert made.mounts[0].source == "data-3"


@pytest.mark.parametrize("text", ["{{.Nope}}", "{{range .Task}}", "{{.Task.ID"])
def test_templates_that_mean_nothing(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expanding"):
        fill(text, {"Task.ID": "t"})


def test_networks_limits_and_ports() -> None:
    base = task(hosts=("192.0.2.9 db",))
    limited = msgspec.structs.replace(base.spec, resources=ResourceRequirements(
        limits=Resources(memory_bytes=64 << 20), reservations=Resources(memory_bytes=32 << 20)))
    full = msgspec.structs.replace(
        base, spec=limited, ports=(PortConfig(target_port=80, published_port=8080, publish_mode="host"),),
        attachments=(NetworkAttachment(network_id="n1", addresses=("10.0.1.5/24",), aliases=("w",), mac="02:42"),))
    made = plan(full, "n1", NODE)
    assert made.endpoints == (EndpointRequest(network="n1", address="10.0.1.5/24", mac="02:42", aliases=("w",)),)
    assert (made.limits.memory_bytes, made.memory_reservation_bytes) == (64 << 20, 32 << 20)
    assert (made.ports[0].host_port, made.ports[0].container_port) == (8080, 80)
    assert made.hosts == ("db:192.0.2.9",)


@pytest.mark.parametrize(("target", "mode"), [("host", "host"), ("bridge", "networks")])
def test_predefined_networks(target: str, mode: str) -> None:
    base = task()
    spec = msgspec.structs.replace(base.spec, networks=(NetworkAttachmentSpec(target=target),))
    assert plan(msgspec.structs.replace(base, spec=spec), "n1", NODE).network_mode == mode


class DictEngine:
    def __init__(self) -> None:
        self.made: dict[str, tuple[ContainerPlan, Seen]] = {}
        self._hear: Callable[[str], None] = lambda container_id: None

    async def create(self, wanted: ContainerPlan) -> str:
        if wanted.image == "none:1":
            raise NotFound("No such image: none:1")
        self._set(wanted.name, wanted, Phase.CREATED)
        return wanted.name

    async def start(self, container_id: str) -> None:
        self._set(container_id, self.made[container_id][0], Phase.RUNNING)

    async def stop(self, container_id: str, grace_s: float) -> None:
        self._set(container_id, self.made[container_id][0], Phase.EXITED)

    async def remove(self, container_id: str) -> None:
        if self.made.pop(container_id, None) is None:
            raise NotFound(f"No such container: {container_id}")

    def labelled(self, label: str) -> Iterable[tuple[str, str, Seen]]:
        return [(key, wanted.labels[label], seen) for key, (wanted, seen) in self.made.items()]

    def seen(self, container_id: str) -> Seen:
        return self.made[container_id][1] if container_id in self.made else Seen()

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        self._hear = changed
        return lambda: None

    async def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        yield container_id.encode()

    def _set(self, container_id: str, wanted: ContainerPlan, phase: Phase) -> None:
        self.made[container_id] = (wanted, Seen(phase=phase, container_id=container_id))
        self._hear(container_id)


async def test_the_executor_makes_finds_again_and_removes() -> None:
    engine, heard = DictEngine(), []
    executor = EngineExecutor(engine, "n1", lambda: NODE)
    assert await executor.open(lambda task_id, seen: heard.append((task_id, seen.phase))) == {}
    one = task()
    for _ in range(2):  # repeated calls change nothing
        await executor.prepare(one)
        await executor.start(one)
    assert executor.seen(one.id).phase is Phase.RUNNING
    assert heard == [(one.id, Phase.RUNNING)]
    assert [part async for part in executor.logs(one.id, LogQuery())] == [one.name.encode()]
    again = EngineExecutor(engine, "n1", lambda: NODE)
    assert (await again.open(lambda task_id, seen: None))[one.id].phase is Phase.RUNNING
    await again.stop(one.id, 1.0)
    assert again.seen(one.id).phase is Phase.EXITED
    await again.remove(one.id)
    await again.remove(one.id)
    assert again.seen(one.id).phase is Phase.ABSENT
    with pytest.raises(NotFound):
        again.logs(one.id, LogQuery())
    await executor.remove(one.id)  # it is gone already


async def test_a_missing_image_is_named() -> None:
    executor = EngineExecutor(DictEngine(), "n1", lambda: NODE)
    base = task()
    container = msgspec.structs.replace(base.spec.container, image="none:1")  # type: ignore[type-var]
    spec = msgspec.structs.replace(base.spec, container=container)
    with pytest.raises(NotFound, match="No such image: none:1"):
        await executor.prepare(msgspec.structs.replace(base, spec=spec))


def test_the_label_is_dockers() -> None:
    assert TASK_ID == "com.docker.swarm.task.id"
