"""A git repository on a machine's loopback, for builds from it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, end, until

PORT = 5009
REPOSITORY = f"git://127.0.0.1:{PORT}/app"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@example.org", *words],
                          capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(host: Machine, tmp_path: Path) -> Iterator[Path]:
    """Two commits, the first one tagged v1; served on the machine's loopback."""
    folder = tmp_path / "app"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for tag in ("v1", "v2"):
        (folder / "Dockerfile").write_text(f"FROM busybox\nRUN echo {tag} > /version\n")
        (folder / "sub/Dockerfile").write_text(f"FROM busybox\nCOPY . /in\nRUN echo sub-{tag} > /version\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", tag)
        git(folder, "tag", tag)
    daemon = Path(git(tmp_path, "--exec-path")) / "git-daemon"  # `git daemon` would be its parent, and leave it behind
    server = subprocess.Popen(
        [*entering(host.init_pid), str(daemon), "--export-all", f"--base-path={tmp_path}", "--listen=127.0.0.1",
         f"--port={PORT}", "--reuseaddr", str(folder)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_COUNT": "1",
                                        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"})
    try:
        until(lambda: host.inside("git", "ls-remote", REPOSITORY).returncode == 0, "the repository is served")
        yield folder
    finally:
        end(server)
