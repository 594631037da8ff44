"""What the exec spawner is told, what it makes of a program's name, and what happens where it cannot do it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from fcntl import F_GET_SEALS, fcntl
from pathlib import Path
from typing import Any

import pytest

from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, State, Status
from shoal.engine.containers.oci import filters, spec, users
from shoal.engine.containers.oci.cgroups import Cgroups
from shoal.engine.containers.oci.monitor import RuntimeFailed
from shoal.engine.containers.oci.users import User
from shoal.engine.containers.spawner import kernel
from shoal.engine.containers.spawner.client import START, Spawner, Unavailable, sealed_copy, send_order
from shoal.engine.containers.spawner.entering import Failed, find_program
from shoal.engine.containers.spawner.entry import SpawnerEntry
from shoal.engine.containers.spawner.orders import Confinement, make_order, read_confinement
from shoal.engine.containers.stdio.execstdio import ExecStdio
from tests.seccompfilter import outcome

X86_64, X86 = 0xC000003E, 0x40000003


def made(**changes: Any) -> Any:
    process = {**spec.process(argv=["run", "it"], env=["PATH=/bin", "A=b=c"], cwd="/x", user=User(5, 6, (6, 7)),
                              tty=False, capabilities=["CAP_CHOWN", "CAP_KILL"], no_new_privileges=True), **changes}
    return make_order(process, Confinement(oom_score_adj=4, filter=b"f"), keyring="_ses.c", home="/home/five",
                      task_files=["/t"], unified=["/u"])


def test_an_order() -> None:
    order = made()
    assert order["argv"] == [b"run", b"it"]
    assert order["env"] == [(b"PATH", b"/bin"), (b"A", b"b=c"), (b"HOME", b"/home/five")]
    assert (order["uid"], order["gid"], order["groups"]) == (5, 6, [6, 7])
    assert (order["bounding"], order["effective"], order["permitted"]) == (0b100001, 0, 0)  # none for other than root
    assert (order["oom_score_adj"], order["filter"], order["no_new_privileges"]) == (4, b"f", True)
    assert made(env=["HOME=/mine"])["env"] == [(b"HOME", b"/mine")]
    assert made(env=["HOME="])["env"] == [(b"HOME", b"/home/five")]
    assert made(rlimits=[{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}])["rlimits"] == [(4, 1, 2)]
    assert made(consoleSize={"height": 3, "width": 4})["console_size"] == (3, 4)


@pytest.mark.parametrize(("passwd", "home"), [
    pytest.param("root:x:0:0:root:/root:\nme:x:5:5::/home/me:\nother:x:5:5::/home/other:", "/home/me", id="first"),
    pytest.param("root:x:0:0:root:/root:/bin/sh", "/", id="no such user"),
    pytest.param("", "/", id="no users"),
    pytest.param("me:x:5", "/", id="half a line"),
])
def test_home(passwd: str, home: str) -> None:
    assert users.home_of(5, passwd) == home


def test_finding_a_program(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (first / "program").write_text("")
    (second / "program").write_text("")
    (second / "program").chmod(0o755)
    (first / "folder").mkdir()
    path = f"relative::{first}:{second}".encode()
    assert find_program(b"program", path) == os.fsencode(second / "program")
    whole = os.fsencode(second / "program")
    assert find_program(whole, b"") == whole
    for name, reason in {
        "nosuch": 'exec: "nosuch": executable file not found in $PATH',
        "folder": 'exec: "folder": executable file not found in $PATH',
        "": 'exec: "": executable file not found in $PATH',
        f"{first}/nosuch": f'exec: "{first}/nosuch": stat {first}/nosuch: no such file or directory',
        f"{first}/program": f'exec: "{first}/program": permission denied',
        f"{first}/program/x": f'exec: "{first}/program/x": stat {first}/program/x: not a directory',
    }.items():
        with pytest.raises(Failed) as failure:
            find_program(name.encode(), path)
        assert str(failure.value) == reason


# --- filters ---

def compiled(**profile: Any) -> list[tuple[int, int, int, int]]:
    code = filters.compile_filter(json.dumps(profile).encode())
    return [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]


def test_a_filter() -> None:
    program = compiled(
        defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=7, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        syscalls=[
            {"names": ["read", "write", "of_a_newer_kernel"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"},
                      {"index": 1, "value": 5, "op": "SCMP_CMP_GT"}]},
        ])
    allow, errno = 0x7FFF0000, 0x00050000
    for number, arguments, wanted in [
        (0, (), allow), (1, (), allow), (2, (), errno | 7), (39, (), errno | 9),
        (135, (8,), allow), (135, (0,), allow), (135, (4,), errno | 7),
        (41, (5, 6), allow), (41, (5, 5), errno | 7), (41, (6, 6), errno | 7),
        (136, (), errno | 38), (5000, (), errno | 38),  # newer than all that the profile names
        (1 << 30, (), 0),  # x32, which it does not have: killed
    ]:
        assert outcome(program, X86_64, number, arguments) == wanted, (number, arguments)
    assert outcome(program, X86, 3, ()) == allow
    assert outcome(program, X86, 360, ()) == errno | 38
    assert outcome(program, 0xC00000B7, 0, ()) == 0


def test_a_filter_that_allows_what_it_does_not_name() -> None:
    program = compiled(defaultAction="SCMP_ACT_ALLOW",
                       syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}])
    assert outcome(program, X86_64, 83, ()) == 0x80000000
    assert outcome(program, X86_64, 5000, ()) == 0x7FFF0000


@pytest.mark.parametrize(("profile", "reason"), [
    pytest.param({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}, "flags", id="flags"),
    pytest.param({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY", id="action"),
    pytest.param({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390"]}, "S390", id="architecture"),
    pytest.param({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]},
        "argument 6", id="argument"),
])
def test_a_filter_that_is_left_to_the_runtime(profile: dict[str, Any], reason: str) -> None:
    with pytest.raises(filters.Unsupported, match=reason):
        compiled(**profile)


@pytest.mark.parametrize("last", [
    pytest.param({X86_64: {"x86_64": 300}}, id="one"),
    pytest.param({X86_64: {"x86_64": 300, "x32": (1 << 30) + 200}, X86: {"x86": 300}}, id="both of one"),
    pytest.param({X86_64: {"x32": (1 << 30) + 200}}, id="x32"),
    pytest.param({X86_64: {}, X86: {"x86": 300}}, id="none of one"),
])
def test_the_stub_gives_enosys_above_the_last_ones_alone(last: dict[int, dict[str, int]]) -> None:
    program = [*filters.enosys_stub(last), (0x06, 0, 0, 1)]
    for audit in (X86_64, X86, 5):
        for number in (0, 299, 300, 301, 1 << 30, (1 << 30) + 200, (1 << 30) + 201):
            known = last.get(audit, {})
            limit = known.get("x32" if audit == X86_64 and number >= 1 << 30 else
                              "x86_64" if audit == X86_64 else "x86")
            wanted = 0x00050000 | 38 if limit is not None and number > limit else 1
            assert outcome(program, audit, number, ()) == wanted, (audit, number)


def test_what_a_container_was_made_with(tmp_path: Path) -> None:
    place = tmp_path / "config.json"
    place.write_text(json.dumps({
        "process": {"oomScoreAdj": 3, "args": []},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, "namespaces": []}}))
    found = read_confinement(place)
    assert found.oom_score_adj == 3
    assert found.filter
    place.write_text('{"process": {}, "linux": {}}')
    assert read_confinement(place) == Confinement()


# --- its process ---

def test_it_imports_next_to_nothing() -> None:
    """Each module is memory, and something that might look for files once it stands in a container."""
    look = ("import sys; before = set(sys.modules); sys.path.append(sys.argv[1]); "
            "from shoal.engine.containers.spawner import server; print(*sorted(set(sys.modules) - before))")
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-ISE", "-c", look, root], text=True, capture_output=True, check=True)
    assert {name for name in done.stdout.split() if not name.startswith("shoal")} <= {
        "__future__", "_collections_abc", "_ctypes", "_socket", "_stat", "_struct", "ctypes", "ctypes._endian", "errno",
        "fcntl", "genericpath", "os", "os.path", "posixpath", "stat", "struct", "types"}


def test_a_sealed_copy(tmp_path: Path) -> None:
    place = tmp_path / "program"
    place.write_bytes(b"content" * 1000)
    copy = sealed_copy(str(place))
    try:
        assert os.pread(copy, 10_000, 0) == place.read_bytes()
        assert fcntl(copy, F_GET_SEALS) == kernel.SEALS
        with pytest.raises(PermissionError):
            os.pwrite(copy, b"x", 0)
    finally:
        os.close(copy)


def test_it_does_not_run_from_a_file_that_can_be_changed() -> None:
    start = ("import sys; sys.path.append(sys.argv[1]); from shoal.engine.containers.spawner import server; "
             "server.main(0)")
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-ISE", "-c", start, root], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL)
    assert "no sealed copy" in done.stderr
    assert done.returncode


async def test_what_is_left_to_the_runtime(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Useless(Spawner):
        async def ready(self) -> None:
            raise Unavailable("no reason")

    class Bundle:
        bundle = tmp_path

    class ByRuntime:
        asked = 0

        def prepare(self, *_: object) -> Callable[[ExecStdio], Any]:
            self.asked += 1
            return self.start

        async def start(self, stdio: ExecStdio) -> Any:
            raise RuntimeFailed("as the runtime says")

    container = Container(id="c", name="c", created_ns=1, image_id="i", config=ContainerConfig(), host=HostConfig(),
                          state=State(status=Status.RUNNING, pid=os.getpid()))
    stdio = ExecStdio(tty=False, stdin=False, streams=frozenset())
    process = spec.process(argv=["x"], env=[], cwd="/", user=User(), tty=False, capabilities=[],
                           no_new_privileges=False)
    runtime = ByRuntime()
    entry = SpawnerEntry(Useless(), runtime, Cgroups(), lambda _: Bundle(), lambda _: "/")  # type: ignore[arg-type,return-value]
    for seccomp in ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, {"defaultAction": "SCMP_ACT_ALLOW"}):
        (tmp_path / "config.json").write_text(json.dumps({"process": {}, "linux": {"seccomp": seccomp}}))
        for _ in range(2):
            with pytest.raises(RuntimeFailed):
                await entry.prepare(container, "e", process, "/")(stdio)
    assert runtime.asked == 4
    reasons = [record.args for record in caplog.records if "exec-by-runtime" in record.msg]
    assert reasons == [("its seccomp profile has flags",), ("no reason",)]


async def test_who_waits_for_room_hears_that_the_spawner_was_let_go_of() -> None:
    """And the number of its socket is watched no more: the next socket may have it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    loop, room = asyncio.get_running_loop(), asyncio.Event()
    with theirs, ours:
        with pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x" * 1000)
        waiting = loop.create_task(send_order(ours, [theirs.fileno()], room))
        await asyncio.sleep(0)
        number = ours.fileno()
        loop.remove_writer(number)
        ours.close()
        room.set()
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionResetError):
                await waiting
        assert not loop.remove_writer(number)


async def test_an_order_waits_for_room() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, ours:
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x")
                sent += 1
        waiting = asyncio.get_running_loop().create_task(send_order(ours, [theirs.fileno()], asyncio.Event()))
        await asyncio.sleep(0)
        for _ in range(sent):
            theirs.recv(16)
        async with asyncio.timeout(30):
            await waiting
        message, descriptors, _, _ = socket.recv_fds(theirs, 16, 4)
        assert (message, len(descriptors)) == (START, 1)
        os.close(descriptors[0])
