"""Images that a build starts from and makes: behind a password, for another platform, in one layer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, end, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1:5008"
OTHER = "linux/s390x"
EPOCH = "SOURCE_DATE_EPOCH=1000"


@pytest.fixture
def registry(host: Machine) -> Iterator[Machine]:
    """One of ours on the machine's loopback, for those who know the password; nobody is logged in."""
    users = host.root / "htpasswd"
    users.write_text("me:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
    server = subprocess.Popen(
        [*entering(host.init_pid), sys.executable, "-m", "shoal.cli.main", "registry", "serve", "--listen", ADDRESS,
         "--root", str(host.root / "registry"), "--htpasswd", str(users)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    look = (f"import urllib.request, urllib.error\ntry:\n urllib.request.urlopen('http://{ADDRESS}/v2/')\n"
            "except urllib.error.HTTPError:\n pass")
    try:
        until(lambda: host.inside(sys.executable, "-c", look).returncode == 0, "the registry answers")
        yield host
    finally:
        end(server)
        host.docker_run("logout", ADDRESS)


def log_in(host: Machine) -> None:
    host.docker("login", "--username", "me", "--password-stdin", ADDRESS, stdin="secret")


def push(host: Machine, source: str, name: str) -> str:
    name = f"{ADDRESS}/{name}"
    host.docker("tag", source, name)
    host.docker("push", name)
    host.docker("rmi", name)
    return name


def test_a_base_behind_a_password_is_pulled_with_it(registry: Machine, tmp_path: Path) -> None:
    log_in(registry)
    registry.docker("build", "--tag", "base", "-", stdin="FROM busybox\nRUN echo secret > /secret\n")
    base = push(registry, "base", "secret/base:v1")
    registry.docker("rmi", "base")
    text = f"FROM busybox\nCOPY --from={base} /bin/busybox /copied\nFROM {base}\nCOPY --from=0 /copied /copied\n"
    registry.docker("logout", ADDRESS)
    assert "no basic auth credentials" in registry.docker("build", "--tag", "built", "-", stdin=text, code=1)
    log_in(registry)
    registry.docker("build", "--tag", "built", "-", stdin=text)
    taken = f"FROM busybox\nCOPY --from={base} /bin/busybox /copied\n"
    registry.docker("build", "--tag", "taken", "-", stdin=taken)
    registry.docker("build", "--squash", "--tag", "squashed", "-", stdin=taken)
    registry.docker("build", "--tag", "open", "-", stdin="FROM busybox\nENV A=b\n")
    index = json.loads((registry.root / "data/images/index.json").read_text())["images"]
    private = {name: index[registry.inspect(name)["Id"]].get("private", False) for name in (
        "built", "taken", "squashed", "open", "busybox")}
    assert private == {"built": True, "taken": True, "squashed": True, "open": False, "busybox": False}
    registry.docker("rmi", "built", "taken", "squashed", "open", base)
    (tmp_path / "Dockerfile").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "shoal.cli.main", "--host", f"unix://{registry.socket}", "build", "--tag", "built",
         str(tmp_path)], env=registry.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    registry.docker("rmi", "built", base)
    registry.docker("builder", "prune", "--force", "--all")


def test_a_cache_comes_from_a_registry(registry: Machine) -> None:
    """From an image that was pulled, and whose steps nobody here has ever done."""
    log_in(registry)
    text = "FROM busybox\nRUN echo a > /a\nENV B=c\nRUN echo d > /d\n"
    registry.docker("build", "--tag", "built", "-", stdin=text)
    name = push(registry, "built", "cache/built:v1")
    registry.docker("rmi", "built")
    registry.docker("builder", "prune", "--force", "--all")
    assert "Using cache" not in registry.docker("build", "--no-cache", "--tag", "built", "-", stdin="FROM busybox\n")
    registry.docker("pull", name)
    said = registry.docker("build", "--cache-from", name, "--tag", "built", "-", stdin=text + "RUN echo e > /e\n")
    assert said.count("Using cache") == 3 and said.count("Running in") == 1
    layers = registry.inspect(name)["RootFS"]["Layers"]
    assert registry.inspect("built")["RootFS"]["Layers"][: len(layers)] == layers
    registry.docker("rmi", "built", name)
    registry.docker("builder", "prune", "--force", "--all")


def test_another_platform_is_built_for_but_not_run(registry: Machine) -> None:
    log_in(registry)
    text = "FROM --platform=$BUILDPLATFORM busybox AS here\nFROM scratch\nCOPY --from=here /bin/busybox /bin/sh\n"
    registry.docker("build", "--platform", OTHER, "--tag", "foreign", "-", stdin=text)
    assert registry.inspect("foreign")["Architecture"] == "s390x"
    base = push(registry, "foreign", "base:v1")
    registry.docker("tag", "busybox", base)  # what has the name here is for this host
    said = registry.docker("build", "--platform", OTHER, "--tag", "foreign", "-",
                           stdin=f"FROM {base}\nARG TARGETARCH\nLABEL arch=$TARGETARCH\n")
    assert "Downloaded newer image" in said
    found = registry.inspect("foreign")
    assert (found["Architecture"], found["Config"]["Labels"]) == ("s390x", {"arch": "s390x"})
    said = registry.docker("build", "--platform", OTHER, "-", stdin="FROM busybox\n", code=1)
    assert "busybox" in said  # it is not for that platform, and there is none to be pulled
    registry.docker("rmi", "--force", "foreign", base)
    registry.docker("builder", "prune", "--force", "--all")


def test_what_a_host_cannot_run_is_named(host: Machine, tmp_path: Path) -> None:
    (tmp_path / "sh").write_bytes(b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x02\x00\x16" + bytes(100))  # of an s390x
    (tmp_path / "sh").chmod(0o755)
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY sh /bin/sh\nRUN ["/bin/sh"]\n')
    done = host.docker_run("build", "--platform", OTHER, str(tmp_path))
    assert done.returncode == 1 and "exec format error" in done.stdout
    assert f"the image is for {OTHER}" in done.stderr and "binfmt_misc" in done.stderr
    host.docker("builder", "prune", "--force", "--all")


def test_a_squashed_image_has_one_layer_on_its_base(host: Machine) -> None:
    text = ("FROM busybox\nRUN echo 1 > /one && echo x > /gone\nRUN rm -r /gone /etc/passwd && mkdir -p /var/cache/a\n"
            "ENV A=b\nRUN ln /one /two && rm -r /var && mkdir /var && echo 3 > /var/three\n")
    host.docker("build", "--tag", "plain", "-", stdin=text)
    said = host.docker("build", "--squash", "--tag", "squashed", "-", stdin=text)
    assert said.count("Using cache") == 4  # what is squashed are the steps of a build like any other
    base, plain, squashed = (host.inspect(name) for name in ("busybox", "plain", "squashed"))
    assert squashed["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert squashed["Config"] == plain["Config"]
    for command in ("find / -xdev -not -path '/proc/*' | sort", "cat /one /two /var/three; stat -c %h /one"):
        outputs = {host.docker("run", "--rm", name, "sh", "-c", command) for name in ("plain", "squashed")}
        assert len(outputs) == 1 and outputs != {""}
    history = host.docker("history", "--no-trunc", "--format", "{{.Size}} {{.Comment}}", "squashed").splitlines()
    assert history[0].endswith(f"merge {plain['Id']} to {base['Id']}")
    assert all(line.startswith("0B") for line in history[1:5])
    again = [host.docker("build", "--squash", "--quiet", "--no-cache", "--build-arg", EPOCH, "-", stdin=text)
             for _ in range(2)]
    assert again[0] == again[1]
    host.docker("build", "--squash", "--tag", "nothing", "-", stdin="FROM scratch\nENV A=b\n")
    assert len(host.inspect("nothing")["RootFS"]["Layers"]) == 1
    host.docker("rmi", "plain", "squashed", "nothing")
    host.docker("builder", "prune", "--force", "--all")
