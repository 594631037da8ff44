"""A task's container in the engine's words, and the engine's state in the task's."""

from __future__ import annotations

import pytest

from shoal.api.specs import LogDriver, Mount, Resources
from shoal.daemon.swarm.containers import seen, translate
from shoal.engine.containers.nouns import (
    Container,
    ContainerConfig,
    Health,
    HostConfig,
    Limits,
    MountRequest,
    State,
    Status,
)
from shoal.worker.containerplan import ContainerPlan
from shoal.worker.taskmachine import Health as SeenHealth
from shoal.worker.taskmachine import Phase


@pytest.mark.parametrize(("state", "phase"), [
    (State(), Phase.CREATED),
    (State(error="exec: not found", exit_code=127), Phase.EXITED),
    (State(status=Status.RUNNING, pid=7), Phase.RUNNING),
    (State(status=Status.PAUSED), Phase.RUNNING),
    (State(status=Status.RESTARTING), Phase.RUNNING),
    (State(status=Status.EXITED, exit_code=3), Phase.EXITED),
    (State(status=Status.REMOVING), Phase.ABSENT),
    (State(status=Status.DEAD), Phase.EXITED),
])
def test_phases(state, phase):
    found = seen(Container(id="c", name="n", created_ns=0, image_id="i", config=ContainerConfig(), host=HostConfig(),
                           state=state))
    assert (found.phase, found.pid, found.exit_code, found.error) == (phase, state.pid, state.exit_code, state.error)
    assert found.health is SeenHealth.NONE


def test_health_is_passed_on():
    state = State(status=Status.RUNNING, health=Health(status="unhealthy"))
    container = Container(id="c", name="n", created_ns=0, image_id="i", config=ContainerConfig(), host=HostConfig(),
                          state=state)
    assert seen(container).health is SeenHealth.UNHEALTHY


def test_nothing_given_is_the_image_s():
    config, host = translate(ContainerPlan(name="web.1", image="busybox"))
    assert (config.entrypoint, config.command) == (None, None)
    assert config.stop_timeout_s == 10
    assert host == HostConfig(network_mode="networks")


def test_limits_and_logs():
    _, host = translate(ContainerPlan(
        name="n", image="i", limits=Resources(nano_cpus=5, memory_bytes=6, pids=7), memory_reservation_bytes=4,
        log_driver=LogDriver(name="json-file", options={"max-size": "1m"})))
    assert host.limits == Limits(nano_cpus=5, memory_bytes=6, pids=7, memory_reservation_bytes=4)
    assert host.log.options == {"max-size": "1m"}


@pytest.mark.parametrize(("mount", "expected"), [
    (Mount(source="/a", target="/b", read_only=True, options={"BindOptions": {"Propagation": "rslave"}}),
     MountRequest(source="/a", target="/b", read_only=True, propagation="rslave")),
    (Mount(type="volume", source="v", target="/b", options={"VolumeOptions": {
        "NoCopy": True, "Labels": {"a": "1"}, "DriverConfig": {"Name": "local", "Options": {"o": "bind"}}}}),
     MountRequest(type="volume", source="v", target="/b", no_copy=True, volume_labels={"a": "1"},
                  volume_driver="local", volume_options={"o": "bind"})),
    (Mount(type="tmpfs", target="/t", options={"TmpfsOptions": {"SizeBytes": 9, "Mode": 448}}),
     MountRequest(type="tmpfs", target="/t", tmpfs_size_bytes=9, tmpfs_mode=448)),
    (Mount(type="tmpfs", target="/t", options={"TmpfsOptions": {"Options": [["nr_inodes", "1k"], ["exec"]]}}),
     MountRequest(type="tmpfs", target="/t", options=("nr_inodes=1k", "exec"))),
])
def test_mounts(mount, expected):
    _, host = translate(ContainerPlan(name="n", image="i", mounts=(mount,)))
    assert host.mounts == (expected,)
