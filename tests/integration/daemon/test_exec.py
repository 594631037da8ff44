"""Execs through the spawner and through the runtime: each is to be what the other is. And what a container may try.

Both ways are taken into the same containers: shoald is started again with the other setting.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shoal.engine.containers.oci import spec
from shoal.engine.containers.oci.monitor import RuntimeFailed
from shoal.engine.containers.oci.users import User
from shoal.engine.containers.spawner.client import Spawner
from shoal.engine.containers.spawner.order import Order
from shoal.engine.containers.spawner.orders import Confinement, make_order
from shoal.lab.processes import command_line
from tests.integration.daemon.host import CGROUPS, Machine, until
from tests.seccompfilter import Filter, filter_of, outcome

pytestmark = [pytest.mark.root, pytest.mark.clients]

PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
         "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
                  {"index": 1, "value": 3, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]},
    ],
}

CONTAINERS = {
    "plain": ["--ipc", "shareable"],
    "user": ["--user", "1000:1000", "--group-add", "5", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "-e", "A=of it"],
    "privileged": ["--privileged"],
    "strict": ["--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp", "--ulimit", "nofile=200:200",
               "--ulimit", "msgqueue=1000:2000", "--oom-score-adj", "500", "--memory", "64m", "--pids-limit", "50"],
    "unconfined": ["--security-opt", "seccomp=unconfined", "--workdir", "/var/tmp"],
    "profiled": ["--security-opt", "seccomp={profile}", "--security-opt", "no-new-privileges"],
    "host": ["--pid", "host", "--network", "host", "--uts", "host"],
    "joined": ["--pid", "container:plain", "--ipc", "container:plain", "--network", "container:plain"],
    "own": ["--cgroupns", "private"],
    "shared": ["--cgroupns", "host"],
}
EXECS = {
    "as it is": [],
    "privileged": ["--privileged", "--user", "nobody"],
    "terminal": ["--tty", "--user", "12345:6", "--env", "A=1", "--workdir", "/etc"],
}
LOOK = r"""
grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Cap|NoNewPrivs|Seccomp)' /proc/self/status
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj
for name in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$name; done
awk '{print $1 == $5, $1 == $6, $7 != 0, $8 > 0}' /proc/$$/stat
env | sort; id; pwd; ls /proc/self/fd; tty; stty size 2>&1
awk -v name="_ses.$(hostname)" 'index($9, name) {print $1}' /proc/keys
echo again > /dev/stdout
"""
FAILURES = [
    ["plain", "nosuch"], ["plain", "/nosuch"], ["plain", "/etc/passwd"], ["plain", ""],
    ["plain", "/etc/passwd/x"], ["--workdir", "/nosuch", "plain", "true"],
    ["--workdir", "/etc/passwd", "plain", "true"], ["--user", "nobody", "--workdir", "/tmp/closed", "plain", "true"],
    ["--user", "stranger", "plain", "true"], ["--user", "0:stranger", "plain", "true"],
    ["--env", "PATH=", "plain", "sh"], ["plain", "/tmp/no-interpreter"], ["plain", "/tmp/no-format"],
    ["--user", "nobody", "plain", "/tmp/closed/sh"], ["plain", "/tmp/dangling"],
    ["plain", "sh", "-c", "exit 9"], ["plain", "sh", "-c", "kill -9 $$"],
]


class TwoWays(Machine):
    """A machine whose execs go the one way or the other."""

    by_runtime = False

    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text(json.dumps({"exec-spawner": not self.by_runtime}))
        return path

    def go(self, *, by_runtime: bool) -> None:
        """Have execs go this way from now on."""
        if self.by_runtime != by_runtime:
            self.by_runtime = by_runtime
            self.kill()
            self.start()

    def spawners(self) -> list[int]:
        """As this test sees them."""
        return [int(entry.name) for entry in Path("/proc").iterdir()
                if entry.name.isdecimal() and self._is_here(entry)
                and any("containers.spawner" in word for word in command_line(int(entry.name)))]

    def _is_here(self, entry: Path) -> bool:
        with suppress(OSError):
            return (entry / "ns/pid").readlink() == Path(f"/proc/{self.init_pid}/ns/pid").readlink()
        return False

    def pid_of(self, container: str, *command: str) -> int:
        """A process in the container, as this test sees it."""
        full_id = self.inspect(container)["Id"]
        folders = [CGROUPS / "pids" / self.cgroup / full_id, CGROUPS / self.cgroup / full_id]
        group = next(folder for folder in folders if folder.exists())
        return int(until(lambda: next((pid for pid in (group / "cgroup.procs").read_text().split()
                                       if command_line(int(pid)) == list(command)), ""), f"{command} runs"))


@pytest.fixture(scope="module")
def ways() -> Iterator[TwoWays]:
    """With all those containers."""
    with TwoWays(Path(tempfile.mkdtemp(prefix="shoal-exec-"))) as made:
        profile = made.root / "profile.json"
        profile.write_text(json.dumps(PROFILE))
        for name, words in CONTAINERS.items():
            made.docker("run", "--detach", "--name", name, *(word.format(profile=profile) for word in words),
                        "busybox", "sleep", "1000")
        made.docker("exec", "plain", "sh", "-c", "mkdir -m 700 /tmp/closed; cd /tmp; cp /bin/busybox closed/sh; "
                    "echo '#!/nosuch' > no-interpreter; echo text > no-format; chmod +x no-*; ln -s nosuch dangling")
        yield made


def _limits_are_as_inherited(text: str) -> str:
    """Go 1.19, which Debian's runc is made with, raises the soft limit of files; no other does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = text.splitlines()
    return "\n".join(line for line in lines if soft == hard or not line.startswith("Max open files"))


@pytest.fixture(scope="module")
def seen(ways: TwoWays) -> dict[bool, dict[tuple[str, str], str]]:
    """What every exec in every container sees, by each way: (container, exec) → text."""
    found: dict[bool, dict[tuple[str, str], str]] = {}
    for by_runtime in (False, True):
        ways.go(by_runtime=by_runtime)
        found[by_runtime] = {
            (container, each): _limits_are_as_inherited(
                ways.docker_run("exec", *options, container, "sh", "-c", LOOK).stdout)
            for container in CONTAINERS for each, options in EXECS.items()}
        assert bool(ways.spawners()) is not by_runtime
    return found


@pytest.mark.parametrize("each", EXECS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_an_exec_is_given(seen: dict[bool, dict[tuple[str, str], str]], container: str, each: str) -> None:
    by_spawner, by_runtime = (seen[way][container, each] for way in (False, True))
    assert "CapEff:" in by_spawner
    assert "again" in by_spawner
    assert by_spawner == by_runtime


def test_what_it_says_where_it_cannot_run(ways: TwoWays) -> None:
    said: dict[bool, list[tuple[int, str]]] = {}
    for way in (False, True):
        ways.go(by_runtime=way)
        said[way] = []
        for words in FAILURES:
            done = ways.docker_run("exec", *words)
            said[way].append((done.returncode, done.stdout + done.stderr))
    for words, by_spawner, by_runtime in zip(FAILURES, said[False], said[True], strict=True):
        assert by_spawner == by_runtime, words
    assert [code for code, _ in said[False]].count(0) == 1  # root's capabilities go into the closed folder


def test_its_filter_decides_as_the_runtimes_does(ways: TwoWays) -> None:
    filters: dict[str, list[Filter]] = {"plain": [], "user": [], "strict": [], "profiled": []}
    for by_runtime, seconds in ((True, "2000"), (False, "3000")):
        ways.go(by_runtime=by_runtime)
        for container, found in filters.items():
            ways.docker("exec", "--detach", container, "sleep", seconds)
            found.append(filter_of(ways.pid_of(container, "sleep", seconds)))
    for container, (runtimes, mine) in filters.items():
        assert len(mine) == len(runtimes)
        for architecture in (0xC000003E, 0x40000003, 0xC00000B7):
            for number in [*range(480), (1 << 30) + 1, 4_294_967_295]:
                for arguments in ((0, 0), (8, 0), (16, 3), (0x7E020000, 40)):
                    asked = (architecture, number, arguments)
                    assert outcome(mine, *asked) == outcome(runtimes, *asked), (container, asked)


# --- what a container may try ---

def test_the_spawner_is_a_sealed_copy(ways: TwoWays) -> None:
    """CVE-2019-5736: the program of an exec is /proc/self/exe, and writes to it."""
    ways.go(by_runtime=False)
    prefix = sysconfig.get_config_var("installed_base")
    places = dict.fromkeys(str(Path(place)) for place in ("/lib", "/lib64", "/usr", prefix) if Path(place).exists())
    ways.docker("run", "--detach", "--name", "hostile", *(word for place in places
                for word in ("--volume", f"{place}:{place}:ro")), "busybox", "/bin/busybox", "sleep", "1000")
    try:
        busybox = ["hostile", "/bin/busybox"]
        ways.docker("exec", *busybox, "ln", "-s", "/proc/self/exe", "/own")
        ways.docker("exec", *busybox, "sh", "-c", "printf '#!/proc/self/exe -ISc\\n' > /script; /bin/busybox chmod +x "
                    "/script")
        attack = ("import os; end = os.open('/proc/self/exe', os.O_RDONLY); os.set_inheritable(end, True); "
                  "os.execv('/bin/busybox', ['sh', '-c', ': > /ready; until [ -e /go ]; do sleep 0.05; done; '"
                  "f'echo owned > /proc/self/fd/{end}'])")
        home = f"PYTHONHOME={prefix}"
        done = ways.docker_run("exec", "--env", home, "hostile", "/script")
        assert done.returncode, done
        attacker = ways.docker_start("exec", "--env", home, "hostile", "/own", "-S", "-c", attack)
        ways.docker("exec", *busybox, "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done")
        (spawner,) = ways.spawners()
        assert Path(f"/proc/{spawner}/exe").readlink().name.startswith("memfd:")
        os.kill(spawner, signal.SIGKILL)  # no program that runs is written to, whatever it is
        ways.docker("exec", *busybox, "touch", "/go")
        _, said = attacker.communicate(timeout=60)
        assert attacker.returncode, said
        assert "not permitted" in said
        assert ways.docker("exec", "plain", "echo", "here") == "here"
    finally:
        ways.docker("rm", "--force", "hostile")


def test_nothing_of_the_host_is_open(ways: TwoWays) -> None:
    """CVE-2024-21626: a working folder that leads out through a descriptor."""
    ways.go(by_runtime=False)
    for options in ([], ["--tty"]):
        open_there = ways.docker("exec", *options, "plain", "ls", "/proc/self/fd").split()
        assert open_there == ["0", "1", "2", "3"]  # the last is the folder that it reads
        for descriptor in range(3, 12):
            done = ways.docker_run("exec", *options, "--workdir", f"/proc/self/fd/{descriptor}", "plain", "ls", "..")
            assert done.returncode in (126, 127), (descriptor, done)


def test_a_working_folder_outside_that_looks_like_one_inside(ways: TwoWays) -> None:
    """The container's own files by the host's mount of them: the C library's getcwd would say /etc."""
    root = ways.docker("exec", "host", "awk", "$5 == \"/\"", "/proc/self/mountinfo")
    upper = next(word for word in root.replace(",", " ").split() if word.startswith("upperdir="))
    outside = f"/proc/1/root{Path(upper.removeprefix('upperdir=')).parent}/merged"
    assert ways.docker("exec", "--privileged", "host", "ls", f"{outside}/etc")
    for by_runtime in (True, False):
        ways.go(by_runtime=by_runtime)
        for options in ([], ["--privileged"], ["--tty"]):
            done = ways.docker_run("exec", *options, "--workdir", f"{outside}/etc", "host", "pwd")
            assert done.returncode and "possible container breakout detected" in done.stdout + done.stderr, (
                by_runtime, options, done)


def test_a_privileged_exec_gets_no_new_privileges_where_its_container_gets_none(ways: TwoWays) -> None:
    """As dockerd has it: capabilities alone are more."""
    for by_runtime in (True, False):
        ways.go(by_runtime=by_runtime)
        said = ways.docker("exec", "--privileged", "profiled", "grep", "NoNewPrivs", "/proc/self/status")
        assert said.split()[1] == "1"


def test_what_is_in_the_container_is_not_loaded(ways: TwoWays) -> None:
    """Modules, and what would be asked for names, where the host has its own."""
    ways.go(by_runtime=False)
    planted = [*sys.path, str(Path(sysconfig.get_path("stdlib")))]
    for place in planted:
        if place.startswith("/"):
            ways.docker("exec", "own", "sh", "-c", f"mkdir -p {place}/encodings && for name in os stat sys traceback "
                        f"encodings/utf_8; do echo 'open(\"/owned\", \"w\")' > {place}/$name.py; done")
    for name in ("nosuch", "\udcff", "ls"):
        ways.docker_run("exec", "own", name)
    assert ways.docker_run("exec", "own", "ls", "/owned").returncode


def test_dev_ptmx_that_is_something_else(ways: TwoWays) -> None:
    ways.go(by_runtime=False)
    ways.docker("exec", "own", "sh", "-c", "rm /dev/ptmx; mkfifo /dev/ptmx")
    assert "makes no terminals" in ways.docker_run("exec", "--tty", "own", "true").stdout
    ways.docker("exec", "own", "sh", "-c", "rm /dev/ptmx; ln -s null /dev/ptmx")
    assert "makes no terminals" in ways.docker_run("exec", "--tty", "own", "true").stdout


# --- lives ---

def test_ends(ways: TwoWays) -> None:
    """Of its container, of the spawner, of shoald."""
    ways.go(by_runtime=False)
    ways.docker("run", "--detach", "--name", "short", "busybox", "sleep", "1000")
    waiting = ways.docker_start("exec", "short", "sleep", "2000")
    ways.pid_of("short", "sleep", "2000")
    ways.docker("kill", "short")
    assert waiting.wait(60) == 137
    assert "is not running" in ways.docker("exec", "short", "true", code=1)
    ways.docker("rm", "short")

    (spawner,) = ways.spawners()
    os.kill(spawner, signal.SIGKILL)
    until(lambda: spawner not in ways.spawners(), "it has ended")
    assert ways.docker("exec", "plain", "echo", "here") == "here"
    (spawner,) = ways.spawners()
    os.kill(spawner, signal.SIGSTOP)  # what is asked now waits
    waiting = ways.docker_start("exec", "plain", "echo", "late")
    os.kill(spawner, signal.SIGCONT)
    assert waiting.communicate(timeout=60)[0] == "late\n"

    ways.docker("exec", "--detach", "plain", "sleep", "4000")
    ways.pid_of("plain", "sleep", "4000")
    ways.kill()
    until(lambda: not ways.spawners(), "it ends with shoald")
    ways.start()
    assert ways.pid_of("plain", "sleep", "4000")


def test_a_container_that_stands_still_holds_up_no_other(ways: TwoWays) -> None:
    ways.go(by_runtime=False)
    group = CGROUPS / "freezer" / ways.cgroup / ways.inspect("own")["Id"]
    before = len((group / "cgroup.procs").read_text().split())
    (group / "freezer.state").write_text("FROZEN")
    try:
        waiting = ways.docker_start("exec", "own", "echo", "late")
        until(lambda: len((group / "cgroup.procs").read_text().split()) > before, "it stands in there")
        assert ways.docker("exec", "plain", "echo", "here") == "here"
        assert waiting.poll() is None
    finally:
        (group / "freezer.state").write_text("THAWED")
    assert waiting.communicate(timeout=60)[0] == "late\n"


def order_of_true(*, tty: bool = False, **more: object) -> Order:
    process = spec.process(argv=["true"], env=["PATH=/bin"], cwd="/", user=User(), tty=tty, capabilities=[],
                           no_new_privileges=False)
    return make_order({**process, **more}, Confinement(), keyring="shoal-test", home="/", task_files=[], unified=[])


@pytest.mark.parametrize("tty", [False, True])
async def test_an_exec_that_may_have_few_files_open(tty: bool) -> None:
    """Under seven no container starts with Debian's runc, under eleven none that has a seccomp profile."""
    spawner, own = Spawner(), os.pidfd_open(os.getpid())
    order = order_of_true(tty=tty, rlimits=[{"type": "RLIMIT_NOFILE", "soft": 6, "hard": 6}])
    try:
        await spawner.ready()
        handle, terminal = await spawner.spawn(order, own, () if tty else (0, 1, 2), 60)
        await handle.wait()
        assert handle.exit_code() == 0
        handle.close()
        assert (terminal >= 0) is tty
        if tty:
            os.close(terminal)
    finally:
        os.close(own)
        await spawner.close()


async def test_a_spawner_that_hangs() -> None:
    order, spawner, own = order_of_true(), Spawner(), os.pidfd_open(os.getpid())
    try:
        await spawner.ready()
        hangs = spawner.pid
        os.kill(hangs, signal.SIGSTOP)
        with pytest.raises(RuntimeFailed, match="did not start in"):
            await spawner.spawn(order, own, (0, 1, 2), 0.1)
        handle, terminal = await spawner.spawn(order, own, (0, 1, 2), 60)
        await handle.wait()
        assert (handle.exit_code(), terminal) == (0, -1)
        handle.close()
        assert spawner.pid not in (0, hangs)
    finally:
        os.close(own)
        await spawner.close()


def test_many_at_once(ways: TwoWays) -> None:
    ways.go(by_runtime=False)
    running = [ways.docker_start("exec", "plain", "sh", "-c", f"echo {number}; exit {number}") for number in range(40)]
    for number, each in enumerate(running):
        assert each.communicate(timeout=120)[0] == f"{number}\n"
        assert each.returncode == number
    assert len(ways.spawners()) == 1
