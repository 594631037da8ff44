"""ssh:// from the stock docker command and from shoal, through a real sshd on the machine's own loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import DEADLINE_S, Machine, end, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

SSHD = "/usr/sbin/sshd"
URL = "ssh://root@127.0.0.1:2222"
SHOAL = [sys.executable, "-m", "shoal.cli.main"]


@pytest.fixture(scope="module")
def keys(machine: Machine) -> Path:
    folder = machine.root / "ssh"
    folder.mkdir()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    return folder


@pytest.fixture(scope="module")
def environment(machine: Machine, keys: Path) -> Iterator[dict[str, str]]:
    """What a client needs; an sshd that knows it listens on the machine's loopback."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH on this machine")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"DOCKER_HOST": f"unix://{machine.socket}", "SHOAL_HOST": f"unix://{machine.socket}", "PATH": path}
    if "PYTHONPATH" in os.environ:
        given["PYTHONPATH"] = os.environ["PYTHONPATH"]
    (keys / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1:2222\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\nStrictModes no\n"
        "UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n"
        f"SetEnv {' '.join(f'{key}={value}' for key, value in given.items())}\n")
    (keys / "ssh.conf").write_text(
        f"Host *\n  IdentityFile {keys}/client\n  IdentitiesOnly yes\n  UserKnownHostsFile {keys}/known\n"
        "  StrictHostKeyChecking accept-new\n  BatchMode yes\n")
    (keys / "bin").mkdir()
    (keys / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {keys}/ssh.conf "$@"\n')
    (keys / "bin" / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    with (keys / "sshd.log").open("wb") as log:
        server = subprocess.Popen([*entering(machine.init_pid), SSHD, "-D", "-e", "-f", str(keys / "sshd.conf")],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until(lambda: b"Server listening" in (keys / "sshd.log").read_bytes(), "sshd listens")
    known = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SHOAL_"))}
    yield {**known, "PATH": f"{keys / 'bin'}:{path}", "DOCKER_CONFIG": str(machine.root / "config")}
    end(server)


@pytest.mark.parametrize("client", [["docker"], SHOAL], ids=["docker", "shoal"])
def test_input_and_output_go_over_ssh(host: Machine, environment: dict[str, str], client: list[str]) -> None:
    text = b"line\n" * 20_000
    done = subprocess.run(
        [*entering(host.init_pid), *client, "--host", URL, "run", "--rm", "-i", "busybox", "sh", "-c",
         "cat; sleep 0.3; echo end"],
        env=environment, input=text, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (0, text + b"end\n"), done.stderr


def test_a_host_that_lets_nobody_in_is_an_error(host: Machine, environment: dict[str, str]) -> None:
    done = subprocess.run([*entering(host.init_pid), *SHOAL, "--host", "ssh://127.0.0.1:2223", "ps"], env=environment,
                          capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "shoal: cannot talk to ssh://127.0.0.1:2223" in done.stderr
