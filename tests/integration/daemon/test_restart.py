"""shoald dies at any moment and comes back: containers live on, and nothing of them is lost."""

import signal

import pytest

from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

MAX_START_S = 3.0
"""On a busy machine; alone it takes under one."""


def again(host: Machine) -> None:
    host.kill()
    assert host.start() < MAX_START_S


def test_what_runs_is_found_again(host: Machine) -> None:
    host.docker("network", "create", "app")
    host.docker("run", "-d", "-i", "--name", "box", "--network", "app", "-p", "8081:80", "busybox", "sh", "-c",
                "echo before; until [ -e /go ]; do sleep 0.05; done; echo after; exit 6")
    until(lambda: host.docker("logs", "box") == "before", "its first line")
    before = host.inspect("box")
    again(host)
    after = host.inspect("box")
    assert after["State"]["Pid"] == before["State"]["Pid"]
    assert after["NetworkSettings"] == before["NetworkSettings"]
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert host.docker("run", "--rm", "--network", "app", "busybox", "ping", "-c", "1", "-W", "2", "box")
    host.docker("exec", "box", "touch", "/go")
    assert host.docker("wait", "box") == "6"
    assert host.docker("logs", "box") == "before\nafter"


def test_what_ended_meanwhile_keeps_its_exit_code_and_its_log(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c",
                "until [ -e /go ]; do sleep 0.05; done; echo last words; exit 9")
    pid = host.inspect("box")["State"]["Pid"]
    host.kill()
    host.inside("touch", f"/proc/{pid}/root/go")
    until(lambda: host.inside("test", "-e", f"/proc/{pid}").returncode, "it has ended")
    host.start()
    until(lambda: host.inspect("box")["State"]["Status"] == "exited", "its end is known")
    assert host.inspect("box")["State"]["ExitCode"] == 9
    assert host.docker("logs", "box") == "last words"
    assert host.docker("start", "box") == "box"


def test_what_was_to_be_removed_is(host: Machine) -> None:
    host.docker("run", "-d", "--rm", "--name", "box", "busybox", "sh", "-c", "until [ -e /go ]; do sleep 0.05; done")
    pid = host.inspect("box")["State"]["Pid"]
    host.kill()
    host.inside("touch", f"/proc/{pid}/root/go")
    until(lambda: host.inside("test", "-e", f"/proc/{pid}").returncode, "it has ended")
    host.start()
    until(lambda: host.docker("ps", "--all", "--quiet") == "", "it is removed")


def test_networks_volumes_and_created_containers_are_kept(host: Machine) -> None:
    host.docker("network", "create", "--label", "a=b", "kept")
    host.docker("volume", "create", "--label", "c=d", "kept")
    host.docker("create", "--name", "kept", "--network", "kept", "-v", "kept:/v", "-e", "X=1", "busybox", "env")
    seen = [host.docker(kind, "inspect", "kept") for kind in ("network", "volume", "container")]
    again(host)
    assert [host.docker(kind, "inspect", "kept") for kind in ("network", "volume", "container")] == seen
    assert "X=1" in host.docker("start", "--attach", "kept").splitlines()


def test_a_polite_stop_leaves_containers_running(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    pid = host.inspect("box")["State"]["Pid"]
    host.daemon_signal(signal.SIGTERM)
    assert host.shoald is not None
    assert host.shoald.wait(20) == 0
    assert host.inside("test", "-e", f"/proc/{pid}").returncode == 0
    host.start()
    assert host.inspect("box")["State"]["Pid"] == pid


def test_a_second_daemon_on_the_same_roots_is_refused(host: Machine) -> None:
    import sys

    done = host.inside(sys.executable, "-m", "shoal.daemon", "--data-root", str(host.root / "data"), "--run-root",
                       str(host.root / "run2"), cwd="/")
    assert done.returncode == 1
    assert "in use by another shoald" in done.stderr
