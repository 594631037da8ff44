"""The log driver journald, with systemd's own journald and nothing else of systemd on the machine."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import DEADLINE_S, Machine, end, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

JOURNALD = "/lib/systemd/systemd-journald"
"""As Debian has it, with the package systemd."""

DRIVEN = ("--log-driver", "journald")


class JournalMachine(Machine):
    """A /run of its own, in which journald listens."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._journald: subprocess.Popen[bytes] | None = None

    def on(self) -> None:
        super().on()
        self.inside("sh", "-c", "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal")

    def inside(self, *command: str) -> str:
        done = subprocess.run([*entering(self.init_pid), *command], capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def start_journald(self) -> None:
        with (self.root / "journald.log").open("wb") as log:
            self._journald = subprocess.Popen([*entering(self.init_pid), JOURNALD], stdout=log, stderr=log)
        until(lambda: "socket" in self.inside("ls", "/run/systemd/journal").split(), "journald listens")

    def off(self) -> None:
        if self._journald is not None:
            end(self._journald)
        super().off()


@pytest.fixture(scope="module")
def bare(machine: Machine) -> Iterator[JournalMachine]:
    """Without journald yet. Once the package's has shown that there can be a machine."""
    with JournalMachine(Path(tempfile.mkdtemp(prefix="shoal-journal-"))) as made:
        yield made


@pytest.fixture(scope="module")
def host(bare: JournalMachine) -> JournalMachine:
    bare.docker("create", "--name", "early", *DRIVEN, "busybox", "true")
    said = bare.docker("start", "early", code=1)
    assert "failed to initialize logging driver: journald is not enabled on this host" in said
    bare.start_journald()
    bare.docker("start", "early")
    return bare


def test_both_streams_are_read_back_in_order(host: JournalMachine) -> None:
    host.docker("run", "--detach", "--name", "both", *DRIVEN, "busybox", "sh", "-c",
                "echo one; echo two >&2; printf 'three\\377\\n'; sleep 0.1; printf rest")
    host.docker("wait", "both")
    done = subprocess.run(["docker", "logs", "--timestamps", "both"], env=host.environment(), capture_output=True)
    lines = [line.partition(b" ") for line in done.stdout.splitlines()]
    assert [text for _, _, text in lines] == [b"one", b"three\xff", b"rest"]
    assert all(stamp.endswith(b"000Z") for stamp, _, _ in lines)
    assert done.stderr.partition(b" ")[2] == b"two\n"
    assert host.docker("logs", "--tail", "1", "both") == "rest"
    assert host.docker("logs", "--tail", "0", "both") == ""
    assert host.docker("logs", "--since", lines[2][0].decode(), "both") == "rest"
    assert host.inspect("both")["HostConfig"]["LogConfig"] == {"Type": "journald", "Config": {}}


def test_a_line_in_pieces_is_one_line(host: JournalMachine) -> None:
    host.docker("run", "--name", "long", *DRIVEN, "busybox", "sh", "-c",
                "head -c 12000 /dev/zero | tr '\\0' x; echo; echo last")
    assert host.docker("logs", "long") == "x" * 12000 + "\nlast"
    assert host.docker("logs", "--tail", "2", "long") == "x" * 12000 + "\nlast"


def test_entries_name_their_container(host: JournalMachine) -> None:
    host.docker("run", "--name", "named", *DRIVEN, "--log-opt", "tag=web/{{.Name}}", "busybox", "echo", "hello")
    container_id = host.inspect("named")["Id"]
    host.docker("logs", "named")  # once they are written down
    (entry,) = map(json.loads, host.inside(
        "journalctl", "--output=json", f"CONTAINER_ID_FULL={container_id}").splitlines())
    assert (entry["MESSAGE"].strip(), entry["CONTAINER_NAME"], entry["CONTAINER_ID"], entry["CONTAINER_TAG"]) == (
        "hello", "named", container_id[:12], "web/named")


def test_a_follower_sees_the_last_line_and_ends(host: JournalMachine) -> None:
    count = 2000
    host.docker("run", "--detach", "--interactive", "--name", "talks", *DRIVEN, "busybox", "sh", "-c",
                f"echo ready; read x; i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; done")
    follower = host.docker_start("logs", "--follow", "talks")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    host.docker_run("attach", "talks", stdin="go\n")
    output, _ = follower.communicate(timeout=DEADLINE_S)
    assert output.split() == [str(number) for number in range(1, count + 1)]


def test_a_follower_that_goes_leaves_no_process(host: JournalMachine) -> None:
    host.docker("run", "--detach", "--name", "quiet", *DRIVEN, "busybox", "sh", "-c", "echo ready; sleep 1000")
    follower = host.docker_start("logs", "--follow", "quiet")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    follows = ("sh", "-c", "pgrep --full 'journalctl .*--follow' || true")
    until(lambda: host.inside(*follows).split()[1:], "journalctl follows")  # beside this shell
    follower.kill()
    follower.communicate(timeout=DEADLINE_S)
    until(lambda: not host.inside(*follows).split()[1:], "journalctl has ended")
    host.docker("rm", "--force", "quiet")


def test_its_log_goes_on_after_a_kill_of_shoald(host: JournalMachine) -> None:
    host.docker("run", "--detach", "--name", "lives", *DRIVEN, "busybox", "sh", "-c",
                "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after")
    host.kill()
    host.start()
    host.docker("exec", "lives", "touch", "/go")
    host.docker("wait", "lives")
    assert host.docker("logs", "lives") == "before\nafter"


@pytest.mark.parametrize(("option", "words"), [
    ("labels=a", "is not supported"), ("max-size=1m", "unknown log opt"), ("tag={{.Nothing}}", "log opt tag"),
    ("tag={{json .}}", "log opt tag"),
])
def test_options_that_are_refused(host: JournalMachine, option: str, words: str) -> None:
    assert words in host.docker("create", *DRIVEN, "--log-opt", option, "busybox", code=1)
