"""An image that one host has runs on every host, with no registry and the docker command unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.cli.client import ClientError
from tests.cluster import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture
def built(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A context for builds; images called peers-… are removed from every host at the end."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY bulk /bulk\nCMD [\"sleep\", \"100000\"]\n")
    (tmp_path / "bulk").write_bytes(os.urandom(3 << 20))
    yield tmp_path
    for service in cluster.any_manager().call("GET", "/services"):
        cluster.any_manager().call("DELETE", f"/services/{service['ID']}")
    for name in cluster.names:
        eventually(lambda name=name: removed(cluster, name))


def removed(cluster: Cluster, host: str) -> bool:
    """Whether the images of these tests are gone from a host: tried again while containers use them."""
    client = cluster.client(host)
    for image in client.call("GET", "/images/json", {"filters": {"reference": ["peers-*"]}}):
        client.call("DELETE", f"/images/{image['Id']}", {"force": "1"})
    return True


def build(cluster: Cluster, context: Path, name: str, host: str) -> str:
    """Its id."""
    os.environ["DOCKER_BUILDKIT"] = "0"
    try:
        cluster.docker("build", "-q", "-t", name, str(context), host=host)
    finally:
        del os.environ["DOCKER_BUILDKIT"]
    return str(cluster.client(host).call("GET", f"/images/{name}/json")["Id"])


def ids(cluster: Cluster, reference: str) -> set[str]:
    """What an image's name and digest mean on each host."""
    found = set()
    for host in cluster.names:
        try:
            found.add(str(cluster.client(host).call("GET", f"/images/{reference}/json")["Id"]))
        except ClientError:
            found.add(f"none on {host}")
    return found


@pytest.mark.parametrize("host", ["m1", "w2"])
def test_an_image_built_on_one_host_runs_on_all(cluster: Cluster, built: Path, host: str) -> None:
    """Where it was built, or elsewhere: `docker service create` pins it, so that all run the same."""
    name = f"peers-{host}:1"
    image_id = build(cluster, built, name, host)
    manager = next(each for each in cluster.names if each.startswith("m"))
    eventually(lambda: cluster.client(manager).call("GET", f"/distribution/{name}/json"))  # its host has said so
    cluster.docker("service", "create", "--detach", "--name", "spread", "--mode", "global", name, host=manager)
    cluster.runs("spread", 5)
    pinned = cluster.any_manager().call("GET", "/services/spread")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert pinned.startswith(f"{name}@sha256:")
    assert ids(cluster, pinned) == {image_id}


def test_a_name_without_a_digest_is_found_too(cluster: Cluster, built: Path) -> None:
    """As stacks and other clients give it."""
    image_id = build(cluster, built, "peers-plain", "w1")
    cluster.service("plain", None, container={"Image": "peers-plain"})
    cluster.runs("plain", 5)
    assert ids(cluster, "peers-plain") == {image_id}
    removed_everywhere = [cluster.client(host).call("GET", "/images/json") for host in cluster.names]
    assert all(any("peers-plain:latest" in (image["RepoTags"] or ()) for image in images)
               for images in removed_everywhere)
