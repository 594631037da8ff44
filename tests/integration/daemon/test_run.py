"""The stock docker command against a real shoald: run, ps, logs, exec, stop, rm, and what goes wrong."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]


def test_run_gives_output_and_exit_code(host: Machine) -> None:
    done = host.docker_run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    until(lambda: host.docker("ps", "--all", "--quiet") == "", "the container is removed")


def test_stdin_is_half_closed(host: Machine) -> None:
    """`wc` can only answer once its input has ended, and the answer has to come after that."""
    assert host.docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin="x" * 300_000) == "300000"


def test_output_is_whole(host: Machine) -> None:
    lines = host.docker("run", "--rm", "busybox", "seq", "1", "50000").split()
    assert lines == [str(number) for number in range(1, 50001)]


def test_detached_listed_logged_stopped_removed(host: Machine) -> None:
    made = host.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    assert len(made) == 64
    row = json.loads(host.docker("ps", "--format", "json"))
    assert row["Names"] == "web"
    assert row["Image"] == "busybox"
    assert row["Command"] == "\"sh -c 'echo ready; …\""
    assert row["State"] == "running"
    assert row["Status"].startswith(("Up ", "Less"))
    until(lambda: host.docker("logs", "web") == "ready", "its log")
    assert host.docker("stop", "-t", "0", "web") == "web"
    assert host.docker("ps", "--quiet") == ""
    assert host.docker("ps", "--all", "--format", "{{.Status}}").startswith("Exited (137) ")
    assert host.docker("rm", "web") == "web"
    host.docker("inspect", "web", code=1)


def test_logs_are_followed_until_the_end(host: Machine) -> None:
    host.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c",
                "echo one; echo two >&2; until [ -e /go ]; do sleep 0.05; done; echo three")
    follower = host.docker_start("logs", "--follow", "talker")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "one\n"
    host.docker("exec", "talker", "touch", "/go")
    out, err = follower.communicate(timeout=20)
    assert (out, err, follower.returncode) == ("three\n", "two\n", 0)
    assert host.docker("logs", "--tail", "1", "talker") == "three"
    stamped = host.docker("logs", "--timestamps", "--tail", "1", "talker")
    stamp, _, text = stamped.partition(" ")
    assert text == "three"
    assert stamp.endswith("Z") and stamp[:2] == "20"
    assert host.docker("logs", "--since", stamp, "talker") == "three"
    assert host.docker("logs", "--until", "2001-01-01T00:00:00Z", "talker") == ""


def test_exec(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "-e", "A=1", "-w", "/tmp", "busybox", "sleep", "1000")
    assert host.docker("exec", "box", "sh", "-c", "echo $A $B in $PWD") == "1 in /tmp"
    assert host.docker("exec", "-e", "B=2", "-w", "/etc", "box", "sh", "-c", "echo $A $B in $PWD") == "1 2 in /etc"
    assert host.docker("exec", "-u", "nobody", "box", "id", "-un") == "nobody"
    assert host.docker("exec", "-i", "box", "wc", "-c", stdin="y" * 100_000) == "100000"
    host.docker("exec", "box", "sh", "-c", "exit 9", code=9)
    host.docker("exec", "-d", "box", "touch", "/made")
    until(lambda: host.docker_run("exec", "box", "test", "-e", "/made").returncode == 0, "the detached exec has run")
    assert "nosuchprogram" in host.docker_run("exec", "box", "nosuchprogram").stderr + host.docker_run(
        "exec", "box", "nosuchprogram").stdout
    assert host.docker_run("exec", "box", "nosuchprogram").returncode in (126, 127)


def test_a_terminal(host: Machine) -> None:
    """A tty gives one raw stream, with the line ends of a terminal."""
    said = subprocess.run(["docker", "run", "--rm", "-t", "busybox", "sh", "-c", "test -t 1 && echo yes; echo err >&2"],
                          env=host.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=20).stdout
    assert said == b"yes\r\nerr\r\n"
    host.docker("run", "-d", "-t", "--name", "tty", "busybox", "sh", "-c", "echo hi; sleep 1000")
    until(lambda: host.docker("logs", "tty") == "hi", "its raw log")


class Terminal:
    """A docker command on a terminal of 30 lines and 100 columns."""

    def __init__(self, host: Machine, *words: str) -> None:
        self._seen = b""
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.client = subprocess.Popen(["docker", *words], env=host.environment(), stdin=far, stdout=far, stderr=far,
                                       start_new_session=True)
        os.close(far)

    def type(self, text: str) -> None:
        os.write(self._near, text.encode())

    def until(self, text: str) -> None:
        """Read until `text` has come; what follows it is kept for the next."""
        while text.encode() not in self._seen:
            assert select.select([self._near], [], [], 20)[0], self._seen
            self._seen += os.read(self._near, 65536)
        self._seen = self._seen.partition(text.encode())[2]

    def close(self) -> int:
        code = self.client.wait(20)
        os.close(self._near)
        return code


def test_typing_on_a_terminal(host: Machine) -> None:
    terminal = Terminal(host, "run", "-it", "--rm", "busybox", "sh")
    terminal.until("/ # ")
    terminal.type("stty size; echo $((6 * 7))\n")
    terminal.until("30 100")
    terminal.until("42")
    terminal.type("exit 3\n")
    assert terminal.close() == 3


def test_the_detach_keys_let_go_of_a_terminal(host: Machine) -> None:
    terminal = Terminal(host, "run", "-it", "--name", "kept", "busybox", "sh")
    terminal.until("/ # ")
    terminal.type("\x10\x11")
    assert terminal.close() == 0
    assert host.docker("ps", "--format", "{{.Names}}") == "kept"
    terminal = Terminal(host, "exec", "-it", "kept", "sh", "-c", "stty size; cat")
    terminal.until("30 100")
    terminal.type("\x04")  # the end of input, as a terminal has it
    assert terminal.close() == 0
    terminal = Terminal(host, "attach", "kept")
    terminal.type("echo $((6 * 7))\n")
    terminal.until("42")
    terminal.client.kill()  # its window was closed: the terminal stays all the same
    terminal.close()
    terminal = Terminal(host, "attach", "kept")
    terminal.type("exit $((1 + 4))\n")
    assert terminal.close() == 5


def test_a_program_that_is_not_there_is_named_once(host: Machine) -> None:
    done = host.docker_run("run", "--rm", "busybox", "nosuch")
    assert done.returncode == 127
    assert done.stderr.count('"nosuch": executable file not found') == 1, done.stderr
    until(lambda: host.docker("ps", "--all", "--quiet") == "", "the container is removed")


def test_clients_that_vanish_are_let_go(host: Machine) -> None:
    host.docker("run", "-d", "-i", "--name", "quiet", "busybox", "cat")
    listeners = [host.docker_start(*words) for words in (
        ("events",), ("logs", "-f", "quiet"), ("attach", "quiet"), ("wait", "quiet"), ("stats", "quiet"))]
    info = ("info", "--format", "{{.NEventsListener}}")
    until(lambda: int(host.docker(*info)) > 0, "they listen")
    for each in listeners:
        each.kill()
        each.communicate()
    until(lambda: int(host.docker(*info)) == 0, "nobody listens")
    host.docker("exec", "quiet", "true")


def test_many_at_once(host: Machine) -> None:
    def run(number: int) -> tuple[int, str]:
        done = host.docker_run("run", "--rm", "-i", "busybox", "sh", "-c", f"cat; exit {number}", stdin=f"in {number}")
        return done.returncode, done.stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(24))) == [(number, f"in {number}") for number in range(24)]
    until(lambda: host.docker("ps", "--all", "--quiet") == "", "all are removed")


def test_attach_to_what_runs(host: Machine) -> None:
    host.docker("run", "-d", "-i", "--name", "cat", "busybox", "cat")
    client = host.docker_start("attach", "cat")
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write("to and fro\n")
    client.stdin.flush()
    assert client.stdout.readline() == "to and fro\n"
    host.docker("kill", "cat")
    client.communicate(timeout=20)
    assert client.returncode == 137


def test_environment_directory_user_hostname(host: Machine) -> None:
    said = host.docker("run", "--rm", "-e", "NAME=value", "-w", "/var/tmp", "-u", "65534:65534", "-h", "box", "busybox",
                       "sh", "-c", "echo $NAME $PWD $(id -u):$(id -g) $(hostname)")
    assert said == "value /var/tmp 65534:65534 box"


def test_limits_are_in_the_cgroup_and_in_inspect(host: Machine) -> None:
    host.docker("run", "-d", "--name", "small", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "32", "busybox",
                "sleep", "1000")
    limits = host.inspect("small")["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (64 << 20, 500_000_000, 32)
    stats = json.loads(host.docker("stats", "--no-stream", "--format", "json", "small"))
    assert stats["MemUsage"].endswith("/ 64MiB")
    assert int(stats["PIDs"]) == 1
    host.docker("update", "--memory", "128m", "--memory-swap", "256m", "small")
    assert host.inspect("small")["HostConfig"]["Memory"] == 128 << 20


def test_volumes_and_binds(host: Machine) -> None:
    folder = host.root / "shared"
    folder.mkdir(exist_ok=True)
    (folder / "given").write_text("hello")
    host.docker("run", "--rm", "-v", "data:/data", "-v", f"{folder}:/bound", "busybox", "sh", "-c",
                "cp /bound/given /data/kept; echo back > /bound/written")
    assert (folder / "written").read_text() == "back\n"
    assert host.docker("run", "--rm", "-v", "data:/data:ro", "busybox", "cat", "/data/kept") == "hello"
    assert host.docker_run("run", "--rm", "-v", "data:/data:ro", "busybox", "touch", "/data/x").returncode == 1
    assert host.docker("volume", "ls", "--quiet") == "data"
    assert json.loads(host.docker("volume", "inspect", "data"))[0]["Driver"] == "local"
    host.docker("create", "--name", "user", "-v", "data:/d", "busybox")
    assert "volume is in use" in host.docker("volume", "rm", "data", code=1)
    assert [each["Name"] for each in host.inspect("user")["Mounts"]] == ["data"]
    host.docker("rm", "user")
    assert host.docker("volume", "rm", "data") == "data"


def test_tmpfs(host: Machine) -> None:
    said = host.docker("run", "--rm", "--tmpfs", "/scratch:size=1m", "busybox", "df", "-k", "/scratch")
    assert " 1024 " in said.splitlines()[-1]


def test_kill_wait_rename(host: Machine) -> None:
    host.docker("run", "-d", "--name", "before", "busybox", "sh", "-c",
                "trap 'exit 5' USR1; while :; do sleep 0.05; done")
    host.docker("rename", "before", "after")
    waiting = host.docker_start("wait", "after")
    until(lambda: host.docker_run("kill", "--signal", "USR1", "after").returncode, "it has ended by the signal")
    assert waiting.communicate(timeout=20)[0] == "5\n"
    assert host.inspect("after")["State"]["ExitCode"] == 5
    host.docker("start", "after")
    host.docker("kill", "after")
    assert host.docker("wait", "after") == "137"


def test_pause(host: Machine) -> None:
    host.docker("run", "-d", "--name", "paused", "busybox", "sleep", "1000")
    host.docker("pause", "paused")
    assert host.docker("ps", "--format", "{{.Status}}").endswith("(Paused)")
    assert "paused" in host.docker("exec", "paused", "true", code=1)
    host.docker("unpause", "paused")
    host.docker("exec", "paused", "true")


def test_health(host: Machine) -> None:
    host.docker("run", "-d", "--name", "health", "--health-cmd", "test -e /well", "--health-interval", "100ms",
                "--health-retries", "1", "busybox", "sleep", "1000")
    until(lambda: "(unhealthy)" in host.docker("ps", "--format", "{{.Status}}"), "unhealthy")
    host.docker("exec", "health", "touch", "/well")
    until(lambda: "(healthy)" in host.docker("ps", "--filter", "health=healthy", "--format", "{{.Status}}"), "healthy")
    assert host.inspect("health")["State"]["Health"]["Log"]


def test_top(host: Machine) -> None:
    host.docker("run", "-d", "--name", "topped", "busybox", "sleep", "1000")
    assert "sleep 1000" in host.docker("top", "topped")


def test_restart_policy(host: Machine) -> None:
    host.docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")
    until(lambda: host.inspect("again")["RestartCount"] == 2 and host.inspect("again")["State"]["Status"] == "exited",
          "it was tried twice more")


def test_entrypoint_and_command(host: Machine) -> None:
    assert host.docker("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b") == "a b"
    host.docker("create", "--name", "entry", "busybox")
    assert host.inspect("entry")["Config"]["Cmd"] == ["sh"]


def test_events_tell_a_life(host: Machine) -> None:
    since = f"{time.time():.3f}"
    listener = host.docker_start("events", "--filter", "container=lived", "--format", "{{.Action}}")
    until(lambda: json.loads(host.docker("info", "--format", "json"))["NEventsListener"] >= 1, "it listens")
    host.docker("run", "--rm", "--name", "lived", "busybox", "true")
    assert listener.stdout is not None
    seen = []
    while not seen or seen[-1] != "destroy":
        seen.append(listener.stdout.readline().strip())
    listener.send_signal(signal.SIGINT)
    listener.communicate(timeout=20)
    assert [each for each in seen if each in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy"]
    past = host.docker("events", "--since", since, "--until", f"{time.time():.3f}", "--filter", "container=lived",
                       "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}")
    assert past == "0"


def test_no_such_image(host: Machine) -> None:
    done = host.docker_run("run", "--rm", "nothing-like-it", "true")
    assert done.returncode == 125
    assert "nothing-like-it" in done.stderr
    assert 'Get "https://registry-1.docker.io/v2/": ' in done.stderr  # which this machine cannot reach
    assert "No such image" in host.docker("create", "--pull", "never", "nothing-like-it", code=1)


def test_no_such_program(host: Machine) -> None:
    done = host.docker_run("run", "--rm", "busybox", "nosuchprogram")
    assert done.returncode == 127
    assert "nosuchprogram" in done.stderr


def test_info_and_df(host: Machine) -> None:
    host.docker("run", "-d", "busybox", "sleep", "1000")
    info = json.loads(host.docker("info", "--format", "json"))
    assert (info["Containers"], info["ContainersRunning"], info["Images"]) == (1, 1, 1)
    assert info["DefaultRuntime"] in ("runc", "crun")
    assert host.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").splitlines()[:2] == [
        "Images 1 1", "Containers 1 1"]


def test_prune(host: Machine) -> None:
    host.docker("run", "--name", "old", "busybox", "true")
    host.docker("run", "-d", "--name", "new", "busybox", "sleep", "1000")
    host.docker("system", "prune", "--force")
    assert host.docker("ps", "--all", "--format", "{{.Names}}") == "new"
