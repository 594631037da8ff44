"""What shoald's settings say of registries: mirrors of Docker Hub, and registries that may do without TLS."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, end, until
from tests.integration.daemon.test_registry import answers, started

pytestmark = [pytest.mark.root, pytest.mark.clients]

OUTSIDE, PORT = "192.0.2.1", 5010
"""An address that is no loopback."""


class Configured(Machine):
    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text(json.dumps({"insecure-registries": ["192.0.2.0/24", "other.test:5000"],
                                    "registry-mirrors": [f"http://{OUTSIDE}:{PORT}"]}))
        return path


@pytest.fixture(scope="module")
def configured() -> Iterator[Machine]:
    """With a registry on it, which is also called reg.test."""
    with Configured(Path(tempfile.mkdtemp(prefix="shoal-registries-"))) as host:
        (host.root / "hosts").write_text(f"127.0.0.1 localhost\n{OUTSIDE} reg.test\n")
        host.inside("mount", "--bind", str(host.root / "hosts"), "/etc/hosts")
        host.inside("ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
        config = host.root / "registry.yml"
        config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {host.root}/store}}}}\n"
                          f"http: {{addr: ':{PORT}'}}\n")
        server = started(host, "docker-registry", "serve", str(config))
        until(lambda: answers(host, f"{OUTSIDE}:{PORT}"), "the registry answers")
        yield host
        end(server)


def test_a_registry_is_as_insecure_as_the_address_of_its_name(configured: Machine) -> None:
    docker, name = configured.docker, f"reg.test:{PORT}/tools/box:v1"
    docker("tag", "busybox", name)
    docker("push", name)
    docker("rmi", name)
    docker("pull", name)
    docker("rmi", name)
    configured.inside("sh", "-c", f"echo '127.0.0.1 localhost' > {configured.root}/hosts")
    assert "dial tcp: lookup reg.test: " in docker("pull", name, code=1)


def test_the_hub_is_read_by_its_mirror_and_never_pushed_there(configured: Machine) -> None:
    docker, at_mirror = configured.docker, f"{OUTSIDE}:{PORT}/library/mirrored:v1"
    docker("tag", "busybox", at_mirror)
    docker("push", at_mirror)
    docker("rmi", at_mirror)
    assert "Downloaded newer image for mirrored:v1" in docker("pull", "mirrored:v1")
    assert configured.inspect("mirrored:v1")["RepoDigests"][0].startswith("mirrored@sha256:")
    for words in (("push", "mirrored:v1"), ("pull", "absent:v1")):
        assert "https://registry-1.docker.io/v2/" in docker(*words, code=1)
    docker("rmi", "mirrored:v1")


def test_docker_info_tells_of_both(configured: Machine) -> None:
    said = configured.docker("info")
    assert "Registry Mirrors:\n  http://192.0.2.1:5010/" in said
    told = said.partition("Insecure Registries:\n")[2]
    assert {line.strip() for line in told.splitlines()[:4]} == {
        "::1/128", "127.0.0.0/8", "192.0.2.0/24", "other.test:5000"}
