"""`shoal doctor` on this host: it ends with a well-formed result, and finds what is taken away from it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

LEVELS = {"ok", "warning", "problem"}
EVERYWHERE = {"kernel", "bridge", "vxlan", "nftables", "cgroups", "OCI runtime", "conmon", "port 2377/tcp", "disk",
              "data root", "clock", "Python"}


def doctor(*arguments: str, before: tuple[str, ...] = (), path: str | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code, and finding by name."""
    done = subprocess.run([*before, sys.executable, "-m", "shoal.cli.main", "doctor", "--json", *arguments],
                          capture_output=True, text=True, timeout=120,
                          env={**os.environ, **({"PATH": path} if path is not None else {})})
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["check"]: finding for finding in found}


def test_a_result_of_this_host(tmp_path: Path) -> None:
    code, found = doctor("--data-root", str(tmp_path / "none/yet"))
    assert set(found) >= EVERYWHERE
    assert {finding["level"] for finding in found.values()} <= LEVELS
    assert code == any(finding["level"] == "problem" for finding in found.values())
    assert found["vxlan"]["found"] == "works"  # these tests need it themselves
    assert "ran a container" in found["OCI runtime"]["found"]
    assert all(finding["means"] for finding in found.values() if finding["level"] != "ok")
    assert not list(tmp_path.iterdir())


def test_no_programs(tmp_path: Path) -> None:
    code, found = doctor(path=str(tmp_path))
    assert code == 1
    assert found["OCI runtime"]["level"] == "problem"
    assert "runc" in found["OCI runtime"]["found"]
    assert found["conmon"]["level"] == "problem"
    assert found["vxlan"]["level"] in LEVELS  # nothing could be tried


def test_a_runtime_that_does_not_work(tmp_path: Path) -> None:
    for name in ("runc", "crun"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho cgroups are gone >&2\nexit 1\n")
        program.chmod(0o755)
    code, found = doctor(path=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 1
    assert "cgroups are gone" in found["OCI runtime"]["found"]


def test_a_port_that_is_taken_and_a_closed_firewall() -> None:
    """In a network namespace of their own."""
    script = ("ip link set lo up; nft add table inet other; "
              "nft add chain inet other f '{ type filter hook forward priority 0; policy drop; }'; "
              "nft add chain inet other i '{ type filter hook input priority 0; policy drop; }'; "
              "nft add rule inet other i tcp dport '{ 2377, 2378 }' accept; "
              f"exec {sys.executable} -c 'import socket, subprocess, sys; "
              "s = socket.create_server((\"127.0.0.1\", 7946)); sys.exit(subprocess.call(sys.argv[1:]))' \"$@\"")
    code, found = doctor(before=("unshare", "--net", "sh", "-c", script, "sh"))
    assert code == 1
    assert found["port 7946/tcp"]["level"] == "problem"
    assert "create_server" in found["port 7946/tcp"]["found"]
    assert found["port 2377/tcp"]["level"] == "ok"
    assert "inet other f" in found["firewall, forward"]["found"]
    assert found["firewall, input"]["found"].endswith("does not open 7946/tcp, 4789/udp")


@pytest.mark.parametrize(("place", "level", "words"), [
    pytest.param("netns/ov-4097", "ok", "Shoal's overlay networks", id="ours"),
    pytest.param("netns/1-x", "warning", "not Shoal's", id="docker swarm's"),
    pytest.param("", "warning", "vx0", id="on the host itself"),
])
def test_who_the_kernel_holds_the_vxlan_port_for(tmp_path: Path, place: str, level: str, words: str) -> None:
    """Devices as Shoal and others make them: it is the place of their namespace that tells whose they are."""
    (tmp_path / "netns").mkdir()
    pinned, made = tmp_path / place, "ip link add vx0 type vxlan id 4097 dstport 4789 nolearning; "
    if place:
        made += f"touch {pinned}; unshare --net={pinned} true; ip link set vx0 netns {pinned}; "
    inside = f"nsenter --net={pinned} " if place else ""
    script = f"{made}{inside}ip link set vx0 up; exec \"$@\""
    _, found = doctor(before=("unshare", "--net", "--mount", "sh", "-ec", script, "sh"))
    port = found["port 4789/udp"]
    assert (port["level"], words in port["found"]) == (level, True), port


def test_a_data_root_that_overlays_cannot_stand_on(tmp_path: Path) -> None:
    """An overlay refuses to be the upper layer of another."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    script = f"cd {tmp_path}; mount -t overlay o -o lowerdir=lower,upperdir=upper,workdir=work merged; exec \"$@\""
    code, found = doctor("--data-root", str(tmp_path / "merged"),
                         before=("unshare", "--mount", "sh", "-c", script, "sh"))
    assert code == 1
    assert (found["data root"]["level"], "overlay at" in found["data root"]["found"]) == ("problem", True)


def test_a_daemon_that_hangs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        command = [sys.executable, "-m", "shoal.cli.main", "-H", f"unix://{tmp_path}/s", "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (found,) = (finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "shoald")
    assert (found["level"], "nobody answers" in found["found"]) == ("warning", True)


def test_not_root(tmp_path: Path) -> None:
    """Everything that can be read is judged; what cannot is said."""
    code, found = doctor(before=("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"))
    assert code in (0, 1)
    assert found["user"]["level"] == "warning"
    assert found["firewall"]["level"] == "warning"
    assert "not tried" in found["OCI runtime"]["found"]


def test_words(tmp_path: Path) -> None:
    """Without --json: a line for each, and a last one that counts."""
    done = subprocess.run([sys.executable, "-m", "shoal.cli.main", "doctor", "-q"], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "problem  OCI runtime" in done.stdout
    assert "→ apt-get install runc" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 problems, ")
