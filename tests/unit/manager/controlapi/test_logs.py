"""Logs merged from nodes that answer, hang up, or are gone."""

import asyncio

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shoal.api.objects import ContainerStatus, Service, Task, TaskStatus
from shoal.api.specs import ContainerSpec, ServiceSpec, TaskSpec
from shoal.api.states import NodeState, TaskState
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.frames import BrokenStream, FrameReader, details, frame, with_details
from shoal.manager.controlapi.routes import routes
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, SetTaskStatus
from tests.unit.manager.controlapi_store import MANAGER, WORKER, Swarm, client_of, node

LOST = "l" * 25
DEADLINE_S = 10


def test_frames_survive_any_cut():
    whole = frame(1, b"one\n") + frame(2, b"") + frame(1, b"three\n")
    for cut in range(len(whole)):
        reader = FrameReader()
        assert [*reader.feed(whole[:cut]), *reader.feed(whole[cut:])] == [(1, b"one\n"), (2, b""), (1, b"three\n")]


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\n", b"\x01\0\0\0\xff\xff\xff\xff"])
def test_garbage_is_no_stream(garbage):
    with pytest.raises(BrokenStream):
        list(FrameReader().feed(garbage))


def test_details_stand_before_the_line_and_after_the_time():
    prefix = details({"b": "x y", "a": "1"})
    assert prefix == b"a=1,b=x%20y"
    assert with_details(b"one\ntwo\n", prefix, timestamps=False) == b"a=1,b=x%20y one\na=1,b=x%20y two\n"
    assert with_details(b"2026 one\n", prefix, timestamps=True) == b"2026 a=1,b=x%20y one\n"


class Hosts:
    """The hosts' side of port 7946: a queue of messages for each task; None ends its log."""

    def __init__(self):
        self.logs = {}
        self.queries = {}

    def write(self, task_id, *messages):
        queue = self.logs.setdefault(task_id, asyncio.Queue())
        for message in messages:
            queue.put_nowait(message)

    async def serve(self, request):
        task_id = request.match_info["id"]
        if task_id not in self.logs:
            raise web.HTTPNotFound
        self.queries[task_id] = dict(request.query)
        response = web.StreamResponse()
        await response.prepare(request)
        while (message := await self.logs[task_id].get()) is not None:
            await response.write(message)
        return response


@pytest.fixture
def hosts():
    return Hosts()


@pytest.fixture
async def swarm(hosts):
    app = web.Application()
    app.router.add_get("/tasks/{id}/logs", hosts.serve)
    swarm = Swarm()
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        swarm.session = session
        object.__setattr__(swarm.context, "host_port", server.port)
        object.__setattr__(swarm.context, "host_scheme", "http")
        for each in (MANAGER, WORKER):
            stored = swarm.store.view().nodes[each]
            swarm.store.apply(SetNodeStatus(id=each, status=msgspec.structs.replace(stored.status, addr="127.0.0.1")))
        lost = node(LOST)
        swarm.store.apply(Create(record=lost))
        swarm.store.apply(SetNodeStatus(id=LOST, status=msgspec.structs.replace(lost.status, state=NodeState.DOWN)))
        yield swarm


@pytest.fixture
async def http(swarm):
    async with client_of(routes(swarm.context), api_errors) as http:
        yield http


def service(tty=False):
    return Create(record=Service(id="s1", spec=ServiceSpec(name="web", task=TaskSpec(
        container=ContainerSpec(image="b", tty=tty)))))  # fmt: skip


def task(task_id, node_id=WORKER, state=TaskState.RUNNING, tty=False):
    return Create(record=Task(
        id=task_id, service_id="s1", service_name="web", node_id=node_id, spec=TaskSpec(
            container=ContainerSpec(image="b", tty=tty)),
        status=TaskStatus(state=state, container=ContainerStatus(container_id="c") if state > 400 else None),
    ))  # fmt: skip


async def read(http, path, **query):
    async with asyncio.timeout(DEADLINE_S), http.get(path, params={"stdout": "1", "stderr": "1", **query}) as answer:
        assert answer.status == 200, await answer.text()
        return sorted(FrameReader().feed(await answer.read()))


async def test_lines_of_all_tasks_with_who_said_them(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"), task("t2", MANAGER), task("t3", state=TaskState.PENDING))
    hosts.write("t1", frame(1, b"hello\n"), frame(2, b"oops\n"), None)
    hosts.write("t2", frame(1, b"world\n"), None)
    form = "com.docker.swarm.node.id={},com.docker.swarm.service.id=s1,com.docker.swarm.task.id={} "
    who = {each: form.format(of, each).encode() for each, of in (("t1", WORKER), ("t2", MANAGER))}
    assert await read(http, "/services/web/logs", details="1", tail="5", since="12.5") == sorted([
        (1, who["t1"] + b"hello\n"), (2, who["t1"] + b"oops\n"), (1, who["t2"] + b"world\n")])  # fmt: skip
    assert hosts.queries["t1"] == {"stdout": "1", "stderr": "1", "tail": "5", "since": "12.5"}


async def test_a_lost_node_costs_only_its_own_lines(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"), task("t2", LOST), task("t3", "gone"), task("t4"), task("t5"))
    hosts.write("t1", frame(1, b"hello\n"), None)
    hosts.write("t4", b"no frame at all", None)
    out = await read(http, "/services/web/logs")  # and t5's host knows nothing of it any more
    assert [message for stream, message in out if stream == 1] == [b"hello\n"]
    warnings = b"".join(message for stream, message in out if stream == 2)
    assert warnings.count(b"incomplete log stream") == 3
    assert LOST.encode() in warnings and b"node gone is not part" in warnings


async def test_following_takes_in_tasks_that_start_later(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"))
    hosts.write("t1", frame(1, b"first\n"))
    async with asyncio.timeout(DEADLINE_S):
        query = {"stdout": "1", "follow": "1"}
        async with http.get("/services/web/logs", params=query) as answer:
            assert await answer.content.readexactly(14) == frame(1, b"first\n")
            swarm.store.apply(task("t2"))
            hosts.write("t2", frame(1, b"later\n"))
            assert await answer.content.readexactly(14) == frame(1, b"later\n")
            swarm.store.apply(Delete(table="service", id="s1"))
            hosts.write("t1", None)
            hosts.write("t2", None)
            assert await answer.read() == b""  # the service is gone: the stream ends
    assert hosts.queries["t2"]["follow"] == "1"


async def test_a_task_that_is_asked_for_before_its_container_runs_is_asked_for_again(swarm, hosts, http):
    """A host has nothing to follow of a container that was only created."""
    swarm.store.apply(service(), task("t1"))
    hosts.write("t1", frame(1, b"first\n"))
    async with asyncio.timeout(DEADLINE_S):
        async with http.get("/services/web/logs", params={"stdout": "1", "follow": "1"}) as answer:
            assert await answer.content.readexactly(14) == frame(1, b"first\n")
            hosts.write("t2", None)
            swarm.store.apply(task("t2", state=TaskState.STARTING))
            while "t2" not in hosts.queries:
                await asyncio.sleep(0)
            hosts.write("t2", frame(1, b"later\n"))
            running = TaskStatus(state=TaskState.RUNNING, container=ContainerStatus(container_id="c"))
            swarm.store.apply(SetTaskStatus(id="t2", status=running))
            assert await answer.content.readexactly(14) == frame(1, b"later\n")


async def test_a_node_that_goes_down_while_it_is_followed_is_told(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"), task("t2", MANAGER))
    hosts.write("t1", frame(1, b"first\n"))
    hosts.write("t2")  # says nothing
    async with asyncio.timeout(DEADLINE_S):
        async with http.get("/services/web/logs", params={"stdout": "1", "follow": "1"}) as answer:
            assert await answer.content.readexactly(14) == frame(1, b"first\n")
            stored = swarm.store.view().nodes[WORKER]
            down = msgspec.structs.replace(stored.status, state=NodeState.DOWN)
            swarm.store.apply(SetNodeStatus(id=WORKER, status=down))
            line = await answer.content.readline()
            assert f"node {WORKER} is not available any more\n".encode() in line
            hosts.write("t2", frame(1, b"alive\n"))
            assert await answer.content.readexactly(14) == frame(1, b"alive\n")


async def test_a_node_that_goes_down_while_it_is_read_is_not_waited_for(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"), task("t2", MANAGER))
    hosts.write("t1", frame(1, b"first\n"))  # and no end
    hosts.write("t2", None)
    async with asyncio.timeout(DEADLINE_S), http.get("/services/web/logs", params={"stdout": "1"}) as answer:
        assert await answer.content.readexactly(14) == frame(1, b"first\n")
        stored = swarm.store.view().nodes[WORKER]
        down = msgspec.structs.replace(stored.status, state=NodeState.DOWN)
        swarm.store.apply(SetNodeStatus(id=WORKER, status=down))
        assert f"node {WORKER} is not available any more\n".encode() in await answer.read()


async def test_a_client_that_goes_away_ends_the_reading(swarm, hosts, http):
    swarm.store.apply(service(), task("t1"))
    hosts.write("t1", frame(1, b"first\n"))
    async with asyncio.timeout(DEADLINE_S):
        answer = await http.get("/services/web/logs", params={"stdout": "1", "follow": "1"})
        await answer.content.readexactly(14)
        assert len(swarm.store.memory._watches) == 1
        answer.close()
        while swarm.store.memory._watches:
            hosts.write("t1", frame(1, b"x" * 100_000))
            await asyncio.sleep(0)


async def test_a_terminal_s_log_is_raw(swarm, hosts, http):
    swarm.store.apply(service(tty=True), task("t1", tty=True))
    hosts.write("t1", frame(1, b"hello\r\n"), None)
    for path in ("/services/web/logs", "/tasks/t1/logs"):
        hosts.write("t1", frame(1, b"again\r\n"), None)
        async with asyncio.timeout(DEADLINE_S), http.get(path, params={"stdout": "1"}) as answer:
            assert answer.content_type == "application/vnd.docker.raw-stream"
            assert (await answer.read()).endswith(b"\r\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 400), ({"stdout": "1", "tail": "many"}, 400), ({"stdout": "1", "since": "today"}, 400)],
)
async def test_bad_queries(swarm, http, query, status):
    swarm.store.apply(service(), task("t1"))
    for path in ("/services/web/logs", "/tasks/t1/logs"):
        async with http.get(path, params=query) as answer:
            assert answer.status == status
    async with http.get("/services/none/logs", params={"stdout": "1"}) as answer:
        assert answer.status == 404
