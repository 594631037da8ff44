"""The words of `docker ps`, and which containers it lists."""

import msgspec
import pytest

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.sandbox import EndpointRequest, PublishedPort, Sandbox
from shoal.daemon.http.containers.listing import Lookups, command, duration, select, status, summary
from shoal.engine.containers.nouns import Container, ContainerConfig, Health, HostConfig, MountPoint, State, Status

S = 1_000_000_000
NOW = 1_000_000 * S


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
    (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
    (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"), (730 * 86400, "2 years"),
    (-5, "Less than a second"),
])
def test_durations_in_words(seconds, words):
    assert duration(seconds * S) == words


def ran(status_, **more):
    return State(status=status_, started_ns=NOW - 10 * S, finished_ns=NOW - 3 * S, exit_code=3, **more)


@pytest.mark.parametrize(("state", "words"), [
    (State(), "Created"),
    (ran(Status.RUNNING), "Up 10 seconds"),
    (ran(Status.RUNNING, health=Health()), "Up 10 seconds (health: starting)"),
    (ran(Status.RUNNING, health=Health(status="unhealthy")), "Up 10 seconds (unhealthy)"),
    (ran(Status.PAUSED), "Up 10 seconds (Paused)"),
    (ran(Status.RESTARTING), "Restarting (3) 3 seconds ago"),
    (ran(Status.EXITED), "Exited (3) 3 seconds ago"),
    (State(status=Status.EXITED, exit_code=127), "Created"),  # its program never ran
    (ran(Status.DEAD), "Dead"),
    (ran(Status.REMOVING), "Removal In Progress"),
])
def test_status_in_words(state, words):
    assert status(state, NOW) == words


@pytest.mark.parametrize(("argv", "shown"), [
    (("sh",), "sh"), (("sh", "-c", "echo a b"), "sh -c 'echo a b'"), ((), ""), (("a b", "c"), "a b c"),
])
def test_commands_are_quoted(argv, shown):
    assert command(argv) == shown


def container(number, name, *, status_=Status.RUNNING, image="sha256:i1", code=0, health=None, **config):
    started = 1 if status_ is not Status.CREATED else 0
    return Container(
        id=f"{number}" * 64, name=name, created_ns=number * S, image_id=image,
        config=ContainerConfig(image="busybox", entrypoint=("sleep",), **config), host=HostConfig(),
        mounts=(MountPoint(type="volume", name="data", source="/v/data", target="/data"),) if number == 1 else (),
        state=State(status=status_, exit_code=code, started_ns=started, finished_ns=2, health=health))


ALL = [  # the newest first
    container(4, "made", status_=Status.CREATED),
    container(3, "gone", status_=Status.EXITED, code=7, image="sha256:i2"),
    container(2, "db", labels={"a": "1", "com.docker.swarm.task.id": "t"}, health=Health(status="healthy")),
    container(1, "web", labels={"a": "2"}, exposed_ports=("80/tcp",)),
]
UP = Sandbox(container_id="1" * 64, netns="/n", ports=(PublishedPort(container_port=80, host_port=8080),))


def find(reference):
    for each in ALL:
        if reference in (each.id, each.name):
            return each
    raise NotFound(reference)


LOOKUPS = Lookups(container=find, sandbox=lambda id_: UP if id_.startswith("1") else None,
                  network_of=lambda name: ("net-bridge" if name == "bridge" else "", name),
                  image_id=lambda name: {"busybox": "sha256:i1", "other": "sha256:i2"}.get(name, ""))


@pytest.mark.parametrize(("filters", "names"), [
    ({}, ["db", "web"]),
    ({"status": ["exited"]}, ["gone"]),
    ({"status": ["exited", "created"]}, ["made", "gone"]),
    ({"exited": ["7"]}, ["gone"]),
    ({"exited": ["0"]}, []),
    ({"name": ["^/?we"]}, ["web"]),
    ({"name": ["d"]}, ["db"]),
    ({"name": ["("]}, []),
    ({"id": ["22"]}, ["db"]),
    ({"label": ["a"]}, ["db", "web"]),
    ({"label": ["a", "a=2"]}, ["web"]),
    ({"ancestor": ["busybox"]}, ["db", "web"]),
    ({"ancestor": ["nothing"]}, []),
    ({"before": ["gone"]}, ["db", "web"]),
    ({"since": ["db"]}, ["made", "gone"]),
    ({"health": ["healthy"]}, ["db"]),
    ({"health": ["none"]}, ["web"]),
    ({"volume": ["data"]}, ["web"]),
    ({"volume": ["/data"]}, ["web"]),
    ({"network": ["bridge"]}, ["db", "web"]),
    ({"network": ["net-bridge"]}, ["db", "web"]),
    ({"network": ["other"]}, []),
    ({"publish": ["8080"]}, ["web"]),
    ({"publish": ["8000-8090/tcp"]}, ["web"]),
    ({"publish": ["80"]}, []),
    ({"expose": ["80/tcp"]}, ["web"]),
    ({"is-task": ["true"]}, ["db"]),
    ({"is-task": ["false"]}, ["web"]),
])
def test_filters(filters, names):
    assert [each.name for each in select(ALL, filters, LOOKUPS, everything=False, limit=0)] == names


def test_all_and_limit():
    assert [each.name for each in select(ALL, {}, LOOKUPS, everything=True, limit=0)] == ["made", "gone", "db", "web"]
    assert [each.name for each in select(ALL, {}, LOOKUPS, everything=False, limit=2)] == ["made", "gone"]
    assert len(select(ALL, {}, LOOKUPS, everything=False, limit=-1)) == 2


@pytest.mark.parametrize("filters", [
    {"status": ["walking"]}, {"health": ["fine"]}, {"exited": ["x"]}, {"is-task": ["maybe"]}, {"publish": ["http"]},
])
def test_filters_that_make_no_sense_are_refused(filters):
    with pytest.raises(InvalidArgument):
        select(ALL, filters, LOOKUPS, everything=False, limit=0)


def test_before_nothing_is_an_error():
    with pytest.raises(NotFound):
        select(ALL, {"before": ["nobody"]}, LOOKUPS, everything=False, limit=0)


def test_a_line():
    shown = summary(ALL[3], LOOKUPS, NOW)
    assert shown["Names"] == ["/web"]
    assert shown["Image"] == "busybox"
    assert shown["Ports"] == [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]
    assert summary(ALL[1], LOOKUPS, NOW)["Image"] == "sha256:i2"  # busybox is another image by now


def test_a_list_asks_once_about_what_containers_share():
    asked = []
    known = msgspec.structs.replace(LOOKUPS, image_id=lambda name: asked.append(name) or LOOKUPS.image_id(name)).kept()
    down = ALL[0]
    hosts = (HostConfig(network_mode="none"), HostConfig(network_mode="other"), HostConfig(
        endpoints=(EndpointRequest(network="bridge", aliases=("alias",)),)))
    containers = [*ALL, *(msgspec.structs.replace(down, host=host) for host in hosts), down]
    assert [summary(each, known, NOW) for each in containers] == [summary(each, LOOKUPS, NOW) for each in containers]
    assert asked == ["busybox"]
