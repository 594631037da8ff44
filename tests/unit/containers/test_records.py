"""Records and names of containers, those who wait for them, events: in memory and on disk."""

from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument, NotFound, Overloaded
from shoal.engine.containers import events, names
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, State, Status, WaitResult
from shoal.engine.containers.table import Table
from shoal.engine.containers.waits import Waits


def _container(container_id: str, name: str = "", **state: object) -> Container:
    return Container(id=container_id, name=name or container_id, created_ns=1, image_id="sha256:0",
                     config=ContainerConfig(), host=HostConfig(), state=State(**state))  # type: ignore[arg-type]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table(tmp_path / "containers")
    for container_id, name in (("abc1", "one"), ("abd2", "two"), ("xyz3", "abc")):
        made.reserve(name, container_id)
        made.add(_container(container_id, name))
    return made


@pytest.mark.parametrize(("ref", "expected"), [
    ("abc1", "abc1"), ("one", "abc1"), ("/one", "abc1"), ("abd", "abd2"), ("xy", "xyz3"),
    pytest.param("abc", "xyz3", id="a name before a prefix"),
])
def test_found(table: Table, ref: str, expected: str) -> None:
    assert table.find(ref).id == expected


@pytest.mark.parametrize("ref", ["", "/", "none", "abc12"])
def test_not_found(table: Table, ref: str) -> None:
    with pytest.raises(NotFound, match=f"No such container: {ref}"):
        table.find(ref)


def test_ambiguous(table: Table) -> None:
    with pytest.raises(InvalidArgument, match="Multiple IDs found with provided prefix: ab"):
        table.find("ab")


@pytest.mark.parametrize("name", ["a", "-x", "a b", "ä1", "a/b"])
def test_names_that_are_refused(table: Table, name: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        table.reserve(name, "new")


def test_names_are_freed(table: Table) -> None:
    table.rename("abc1", "three")
    with pytest.raises(Conflict, match='"/three" is already in use by container "abc1"'):
        table.reserve("three", "new")
    assert table.reserve("one", "new") == "one"
    table.drop("abc1")
    assert table.reserve("three", "newer") == "three"


def test_made_up_names_are_not_taken() -> None:
    taken: set[str] = set()
    for _ in range(200):
        taken.add(names.generate(taken))
    assert len(taken) == 200


def test_records_outlive_the_daemon(table: Table, tmp_path: Path) -> None:
    heard: list[str] = []
    end = table.watch(heard.append)
    table.change_state("abc1", status=Status.EXITED, exit_code=3)
    table.drop("abd2")
    end()
    table.change_state("abc1", exit_code=4)
    assert heard == ["abc1", "abd2"]
    (tmp_path / "containers/half").mkdir()  # a create that did not come to its end
    (tmp_path / "containers/xyz3/container.json").write_text("{broken")
    again = Table(tmp_path / "containers")
    assert [(one.id, one.state.exit_code) for one in again.all()] == [("abc1", 4)]
    assert not (tmp_path / "containers/half").exists()
    assert (tmp_path / "containers/xyz3/container.bad").exists()  # for somebody to look at


# --- waiting ---


async def test_waits() -> None:
    waits = Waits()
    running = _container("c", status=Status.RUNNING)
    ended = _container("c", status=Status.EXITED, exit_code=7)
    assert await waits.wait(ended, "not-running") == WaitResult(exit_code=7)
    now, later, gone, tired = (waits.wait(running, condition)
                               for condition in ("", "next-exit", "removed", "next-exit"))
    tired.cancel()
    waits.ended(ended)
    assert (await now).exit_code == (await later).exit_code == 7
    assert not gone.done()
    waits.removed(ended)
    assert (await gone).exit_code == 7
    with pytest.raises(InvalidArgument):
        waits.wait(running, "some-day")


# --- events ---


async def test_events_past_and_present() -> None:
    clock = iter(range(100, 1000))
    made = events.Events(lambda: next(clock))
    made.publish("container", "create", "c")
    with made.subscribe() as mine:
        made.publish("container", "start", "c", {"name": "x"})
        got = await mine.next()
    made.publish("container", "die", "c")
    assert (got.action, got.attributes) == ("start", {"name": "x"})
    assert [one.action for one in made.past(101)] == ["start", "die"]
    assert [one.action for one in made.past(0, 101)] == ["create", "start"]


async def test_a_listener_that_does_not_read_is_told_so() -> None:
    made = events.Events()
    with made.subscribe() as mine:
        for _ in range(events.QUEUE_SIZE + 1):
            made.publish("container", "x", "c")
        for _ in range(events.QUEUE_SIZE):
            await mine.next()
        with pytest.raises(Overloaded):
            await mine.next()
    assert len(made.past(0)) == events.RING_SIZE
