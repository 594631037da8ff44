"""The reference plugin, examples/volume-sftp: a process of its own, and a real OpenSSH server on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, until
from tests.integration.daemon.pluginmachine import PluginMachine

PLUGIN = Path(__file__).parents[3] / "examples/volume-sftp/plugin.py"
SSHD = "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
CONFIG = """
Port 22
ListenAddress 127.0.0.1
HostKey {root}/host-key
AuthorizedKeysFile {root}/user-key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""


class Host(PluginMachine):
    """With an SSH server, and a plugin called `sftp` that keeps volumes below `away`."""

    sshd: subprocess.Popen[bytes] | None = None

    @property
    def away(self) -> Path:
        return self.root / "away"

    def prepare(self) -> None:
        self.away.mkdir()
        for key in ("host-key", "user-key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / key)], check=True)
        words = (self.root / "host-key.pub").read_text().split()
        (self.root / "known-hosts").write_text(f"127.0.0.1 {words[0]} {words[1]}\n")
        (self.root / "sshd-config").write_text(CONFIG.format(root=self.root))

    def start_server(self) -> None:
        with (self.root / "sshd.log").open("ab") as log:
            self.sshd = subprocess.Popen(
                [*entering(self.init_pid), SSHD, "-D", "-e", "-f", str(self.root / "sshd-config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        until(lambda: self.inside("busybox", "nc", "-w", "1", "127.0.0.1", "22").stdout.startswith("SSH-"), "sshd")

    def start_sftp(self) -> None:
        options = [f"IdentityFile={self.root}/user-key", f"UserKnownHostsFile={self.root}/known-hosts"]
        self.plug("sftp", sys.executable, str(PLUGIN), f"root@127.0.0.1:{self.away}", "--socket",
                  str(self.plugin_socket("sftp")), "--mounts", str(self.root / "mounts"),
                  *(word for option in options for word in ("--ssh-option", option)))

    def mounted(self) -> list[str]:
        table = Path(f"/proc/{self.init_pid}/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in table if " fuse.sshfs " in line]


@pytest.fixture(scope="module")
def host(machine: Machine) -> Iterator[Host]:
    for program in (SSHD, "sshfs", "sftp", "fusermount3"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine (setup/tests.sh)")
    if not Path("/dev/fuse").exists():
        pytest.skip("the kernel of this machine has no FUSE")
    separation_is_new = not SEPARATION.exists()
    SEPARATION.mkdir(mode=0o755, exist_ok=True)
    made = Host(Path(tempfile.mkdtemp(prefix="shoal-sftp-")))
    try:
        made.prepare()
        made.on()
        made.start_server()
        made.start_sftp()
        made.start()
        made.load_image()
        yield made
    finally:
        made.off()
        if separation_is_new:
            with suppress(OSError):
                SEPARATION.rmdir()


@pytest.fixture(autouse=True)
def clear(host: Host) -> Iterator[None]:
    yield
    if containers := host.docker("ps", "--all", "--quiet").split():
        host.docker("rm", "--force", "--volumes", *containers)
    for name in host.docker("volume", "ls", "--quiet").split():
        host.docker("volume", "rm", "--force", name)
    assert list(host.away.iterdir()) == []


def test_kept_on_the_other_host(host: Host) -> None:
    host.docker("volume", "create", "--driver", "sftp", "photos")
    shown = json.loads(host.docker("volume", "inspect", "photos"))[0]
    assert (shown["Scope"], shown["Status"]["folder"]) == ("global", str(host.away / "photos"))
    host.docker("run", "--rm", "--volume", "photos:/p", "busybox", "sh", "-c", "echo hello > /p/one; mkdir /p/two")
    assert (host.away / "photos/one").read_text() == "hello\n"
    until(lambda: host.mounted() == [], "it is unmounted when nobody uses it")
    assert host.docker("run", "--rm", "--volume", "photos:/p:ro", "busybox", "cat", "/p/one") == "hello"
    host.docker("volume", "rm", "photos")
    assert not (host.away / "photos").exists()


def test_filled_from_the_image_with_its_owners(host: Host) -> None:
    host.docker("run", "--rm", "--mount", "source=etc,target=/etc,volume-driver=sftp", "busybox", "chown", "7:8",
                "/etc/group")
    assert (host.away / "etc/passwd").exists()
    assert ((host.away / "etc/group").stat().st_uid, (host.away / "etc/group").stat().st_gid) == (7, 8)


def test_two_containers_share_one_mount(host: Host) -> None:
    for name in ("one", "two"):
        host.docker("run", "--detach", "--name", name, "--volume", "both:/x", "--volume-driver", "sftp", "busybox",
                    "sleep", "1000")
    host.docker("exec", "one", "touch", "/x/seen")
    assert host.docker("exec", "two", "ls", "/x") == "seen"
    assert host.mounted() == [str(host.root / "mounts/both")]
    host.docker("rm", "--force", "one")
    assert host.mounted() == [str(host.root / "mounts/both")]
    host.docker("rm", "--force", "two")
    until(lambda: host.mounted() == [], "it is unmounted with the last")


def test_plugin_and_daemon_that_were_killed(host: Host) -> None:
    """The mount outlives both; they know it again."""
    host.docker("run", "--detach", "--name", "lives", "--volume", "kept:/x", "--volume-driver", "sftp", "busybox",
                "sleep", "1000")
    host.unplug("sftp")
    host.kill()
    host.start_sftp()
    host.start()
    host.docker("exec", "lives", "touch", "/x/after")
    assert (host.away / "kept/after").exists()
    assert json.loads(host.docker("volume", "inspect", "kept"))[0]["Status"]["holders"] == 1
    host.docker("rm", "--force", "lives")
    until(lambda: host.mounted() == [], "it is unmounted")


def test_server_that_is_gone(host: Host) -> None:
    """A clear error within the deadline, and everything else goes on."""
    host.docker("volume", "create", "--driver", "sftp", "far")
    assert host.sshd is not None
    for pid in host.inside("busybox", "pidof", "sshd").stdout.split():
        host.inside("kill", "-9", pid)
    host.sshd.wait(30)
    try:
        said = host.docker("run", "--rm", "--volume", "far:/x", "busybox", "true", code=125)
        assert "Connection refused" in said
        assert host.docker("run", "--rm", "busybox", "echo", "goes on") == "goes on"
    finally:
        host.start_server()
    assert host.docker("run", "--rm", "--volume", "far:/x", "busybox", "echo", "again") == "again"


@pytest.mark.parametrize(("call", "body"), [
    ("VolumeDriver.Create", {"Name": "../up"}), ("VolumeDriver.Mount", {"Name": 'a"b', "ID": "x"}), ("Nonsense", {}),
    ("VolumeDriver.Create", {"Name": "a", "Opts": {"x": "y"}}), ("VolumeDriver.Get", {"Name": None}),
    ("VolumeDriver.Get", {"Name": "missing"}),
])
def test_what_the_plugin_refuses(host: Host, call: str, body: dict[str, object]) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(host.plugin_socket("sftp")))
        content = json.dumps(body).encode()
        client.sendall(b"POST /%s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (call.encode(), len(content), content))
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["Err"]
    assert list(host.away.iterdir()) == []
