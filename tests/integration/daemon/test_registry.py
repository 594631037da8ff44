"""The docker command, pulling and pushing: Debian's docker-registry on the machine's own loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, end, until
from tests.integration.images.registries import Made, digest, layer

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1:5005"
HALVES = "127.0.0.1:5006"
HALF_A_REGISTRY = """
import http.server, pathlib, sys, time

root = pathlib.Path(sys.argv[1])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        content = (root / name).read_bytes() if name else b"{}"
        half = (root / "half").exists() and len(content) > 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2 if half else None])
        while half:
            time.sleep(1)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 5006), Handler)
server.daemon_threads = True
server.serve_forever()
"""


def started(host: Machine, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*entering(host.init_pid), *command], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def answers(host: Machine, address: str) -> bool:
    look = f"import urllib.request; urllib.request.urlopen('http://{address}/v2/')"
    return host.inside(sys.executable, "-c", look).returncode == 0


@pytest.fixture
def registry(host: Machine) -> Iterator[Machine]:
    config = host.root / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {host.root}/store}}}}\n"
                      f"http: {{addr: '{ADDRESS}'}}\n")
    server = started(host, "docker-registry", "serve", str(config))
    until(lambda: answers(host, ADDRESS), "the registry answers")
    try:
        yield host
    finally:
        end(server)


def test_an_image_goes_there_and_comes_back(registry: Machine) -> None:
    docker, name = registry.docker, f"{ADDRESS}/tools/box:v1"
    docker("tag", "busybox", name)
    said = docker("push", name)
    assert f"The push refers to repository [{ADDRESS}/tools/box]" in said
    pushed = registry.inspect(name)["RepoDigests"][0]
    assert f"v1: digest: {pushed.partition('@')[2]} size: " in said
    assert "Layer already exists" in docker("push", name)
    docker("rmi", name)
    said = docker("pull", name)
    assert f"Status: Downloaded newer image for {name}" in said
    docker("rmi", name)
    assert docker("run", "--rm", name, "echo", "from afar") == "from afar"  # the command pulls what is missing
    assert docker("pull", "--quiet", f"{ADDRESS}/tools/box@{pushed.partition('@')[2]}").endswith(pushed)
    status, answer = registry.call("GET", f"/distribution/{name}/json")
    assert (status, answer["Descriptor"]["digest"]) == (200, pushed.partition("@")[2])
    docker("rmi", name)


def test_a_build_brings_its_base(registry: Machine) -> None:
    docker, base = registry.docker, f"{ADDRESS}/tools/base:v1"
    docker("tag", "busybox", base)
    docker("push", base)
    docker("rmi", base)
    said = docker("build", "--tag", "built", "-", stdin=f"FROM {base}\nRUN echo built > /made\n")
    assert "Status: Downloaded newer image for" in said and "Successfully tagged built:latest" in said
    assert docker("run", "--rm", "built", "cat", "/made") == "built"
    docker("rmi", "built", base)


def test_the_shoal_command_pulls_and_pushes(registry: Machine) -> None:
    def shoal(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "shoal.cli.main", "--host", f"unix://{registry.socket}", "image",
                               *words], text=True, capture_output=True, check=False, cwd="/", timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    name = f"{ADDRESS}/by/shoal:v1"
    shoal("tag", "busybox", name)
    assert "v1: digest: sha256:" in shoal("push", name)
    shoal("rm", name)
    assert f"Status: Downloaded newer image for {name}" in shoal("pull", name)
    shoal("rm", name)


def test_skopeo_takes_images_out_and_brings_them_back(registry: Machine) -> None:
    name, image_id = f"{ADDRESS}/by/skopeo:v1", registry.inspect("busybox")["Id"]
    daemon = f"unix://{registry.socket}"
    layout = f"oci:{registry.root}/layout:v1"

    def copy(source: str, target: str) -> None:
        done = registry.inside("skopeo", "--insecure-policy", "copy", "--src-daemon-host", daemon, "--dest-daemon-host",
                               daemon, "--src-tls-verify=false", "--dest-tls-verify=false", source, target)
        assert done.returncode == 0, (source, target, done.stdout, done.stderr)

    copy("docker-daemon:busybox:latest", f"docker://{name}")
    registry.docker("pull", name)
    assert registry.inspect(name)["Id"] == image_id
    registry.docker("rmi", name)
    copy(f"docker://{name}", layout)
    copy(layout, "docker-daemon:back:v1")  # an OCI layout has another configuration
    assert registry.inspect("back:v1")["RootFS"] == registry.inspect("busybox")["RootFS"]
    registry.docker("rmi", "back:v1")
    copy(f"docker://{name}", f"docker-daemon:{name}")
    assert registry.inspect(name)["Id"] == image_id
    registry.docker("rmi", name)


def test_what_is_saved_and_loaded_again_is_what_was_pulled(registry: Machine) -> None:
    """docker save | docker load keeps every digest. skopeo unpacks layers on that way: the image's own stays."""
    docker, name = registry.docker, f"{ADDRESS}/kept/box:v1"
    docker("build", "--tag", name, "-", stdin="FROM busybox\nRUN echo kept > /made\n")
    docker("push", name)
    image_id, (pushed,) = (registry.inspect(name)[key] for key in ("Id", "RepoDigests"))
    docker("rmi", name)
    docker("pull", name)
    environment = {**registry.environment(), "NAME": name}
    pipes = {"docker": 'docker save "$NAME" > saved.tar && docker rmi "$NAME" && docker load < saved.tar',
             "skopeo": 'skopeo --insecure-policy copy --src-daemon-host "$DOCKER_HOST" docker-daemon:"$NAME" '
                       'docker-archive:skopeo.tar:"$NAME" && docker rmi "$NAME" && skopeo --insecure-policy copy '
                       '--dest-daemon-host "$DOCKER_HOST" docker-archive:skopeo.tar docker-daemon:"$NAME"'}
    for client, pipe in pipes.items():
        done = registry.inside("sh", "-c", f"cd {registry.root} && {pipe}", env=environment)
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert registry.inspect(name)["Id"] == image_id
        if client == "docker":
            assert f"digest: {pushed.partition('@')[2]}" in docker("push", name)
    docker("rmi", name)


def test_a_service_is_pinned_to_a_digest_and_its_task_pulls_that(registry: Machine) -> None:
    docker, name = registry.docker, f"{ADDRESS}/of/service:v1"
    docker("tag", "busybox", name)
    docker("push", name)
    digest_of = registry.inspect(name)["RepoDigests"]
    pinned = next(each for each in digest_of if each.startswith(f"{ADDRESS}/of/service@")).partition("@")[2]
    docker("rmi", name)
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        assert registry.call("GET", f"/images/{ADDRESS}/of/service@{pinned}/json")[0] == 404
        docker("service", "create", "--detach", "--name", "far", name, "sleep", "1000")
        assert docker("service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "far") == (
            f"{name}@{pinned}")
        until(lambda: docker("service", "ps", "--format", "{{.CurrentState}}", "far").startswith("Running"),
              "its task runs")
    finally:
        docker("swarm", "leave", "--force")


def test_refusals_are_in_dockers_words(registry: Machine) -> None:
    said = registry.docker("pull", f"{ADDRESS}/none:v1", code=1)
    assert f"manifest for {ADDRESS}/none:v1 not found: manifest unknown: manifest unknown" in said
    said = registry.docker("push", f"{ADDRESS}/none:v1", code=1)
    assert f"An image does not exist locally with the tag: {ADDRESS}/none" in said


def test_a_pull_of_what_is_here_fails_without_its_registry(host: Machine) -> None:
    """As with dockerd; what is here stays, and runs without being pulled."""
    name = "127.0.0.1:1/kept:v1"
    host.docker("tag", "busybox", name)
    assert "127.0.0.1:1/v2/" in host.docker("pull", name, code=1)
    assert host.docker("run", "--rm", name, "echo", "kept") == "kept"
    host.docker("rmi", name)


@contextmanager
def half_a_registry(host: Machine, made: Made, store: Path) -> Iterator[Path]:
    """One that stops in the middle of each layer while there is the file that it gives."""
    store.mkdir(exist_ok=True)
    for content in (made.config, *made.blobs):
        (store / digest(content)).write_bytes(content)
    (store / "v1").write_bytes(made.manifest)
    (store / "half").touch()
    server = started(host, sys.executable, "-c", HALF_A_REGISTRY, str(store))
    try:
        until(lambda: answers(host, HALVES), "the registry answers")
        yield store / "half"
    finally:
        end(server)


def scratch(host: Machine) -> Path:
    return host.root / "data/images/blobs/tmp"


def test_a_daemon_killed_in_mid_pull_leaves_nothing_and_pulls_again(host: Machine) -> None:
    made = Made(HALVES, "big", [layer("big", 3_000_000)])
    with half_a_registry(host, made, host.root / "halves") as half:
        pulling = host.docker_start("pull", f"{HALVES}/big:v1")
        until(lambda: [path for path in scratch(host).iterdir() if path.stat().st_size], "half a layer is here")
        host.kill()
        pulling.communicate(timeout=30)
        host.start()
        assert list(scratch(host).iterdir()) == []
        assert host.docker_run("image", "inspect", made.id).returncode != 0
        half.unlink()
        assert "Downloaded newer image" in host.docker("pull", f"{HALVES}/big:v1")
        host.docker("rmi", f"{HALVES}/big:v1")


def test_a_pull_ends_with_its_client(host: Machine, tmp_path: Path) -> None:
    with half_a_registry(host, Made(HALVES, "left", [layer("left", 1_000_000)]), tmp_path):
        pulling = host.docker_start("pull", f"{HALVES}/left:v1")
        until(lambda: list(scratch(host).iterdir()), "a layer comes")
        pulling.kill()
        pulling.communicate(timeout=30)
        until(lambda: not list(scratch(host).iterdir()), "the pull is given up")
