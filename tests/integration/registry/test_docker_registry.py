"""One store, served by Docker's registry and by ours; and skopeo's way through both."""

import json
import os
import subprocess
import sys

import pytest

from tests.integration.registry import pushing
from tests.integration.registry.pushing import OCI_MANIFEST, digest, push_blob, push_image

SHOAL = (sys.executable, "-m", "shoal.cli.main", "registry")


def state(server, name, tag, layer):
    """Everything that a client sees of an image."""
    seen = [server.call(method, f"/v2/{name}/{path}", Accept=OCI_MANIFEST) for method, path in (
        ("GET", f"manifests/{tag}"), ("HEAD", f"manifests/{tag}"), ("GET", f"blobs/{digest(layer)}"),
        ("HEAD", f"blobs/{digest(layer)}"))]
    keep = ("Docker-Content-Digest", "Content-Length", "Content-Type", "Docker-Distribution-Api-Version")
    return [(each.status, each.body, [each.headers[key] for key in keep]) for each in seen] + [
        server.call("GET", f"/v2/{name}/tags/list").json, server.call("GET", "/v2/_catalog").json]


@pytest.mark.parametrize("ours_writes", [True, False])
def test_a_store_that_the_other_wrote(serve, serve_docker, tmp_path, ours_writes):
    root, layer = tmp_path / "store", os.urandom(70_000)
    writer, reader = serve, serve_docker
    if not ours_writes:
        writer, reader = reader, writer
    first = writer(root)
    push_image(first, "a/b", "v1", layer)
    push_image(first, "c", "v2", b"other")
    before = state(first, "a/b", "v1", layer)
    first.kill()
    second = reader(root)
    assert state(second, "a/b", "v1", layer) == before
    found = push_image(second, "a/b", "v3", b"more")
    second.kill()
    third = writer(root).call("GET", "/v2/a/b/manifests/v3", Accept=OCI_MANIFEST)
    assert third.headers["Docker-Content-Digest"] == found


@pytest.mark.parametrize("request_", [
    ("GET", "/v2/"), ("GET", "/v2/none/tags/list"), ("GET", "/v2/a/manifests/none"),
    ("DELETE", "/v2/a/manifests/none"),
    ("GET", "/v2/a/blobs/sha256:" + "0" * 64), ("DELETE", "/v2/a/blobs/sha256:" + "0" * 64),
    ("GET", "/v2/A/manifests/x"), ("POST", "/v2/a/blobs/uploads/"), ("PATCH", "/v2/a/blobs/uploads/" + "0" * 8),
    ("GET", "/v2/a/tags/list"), ("POST", "/v2/a/blobs/uploads/?mount=sha256:" + "0" * 64 + "&from=b"),
], ids=lambda request: " ".join(request)[:40])
def test_the_same_status(serve, serve_docker, tmp_path, request_):
    """But for the deletion of a tag, which Docker's does not have, and for a name that is none."""
    known = {("DELETE", "/v2/a/manifests/none"): 404, ("GET", "/v2/A/manifests/x"): 400}
    ours, docker = serve(tmp_path / "ours", "--delete"), serve_docker(tmp_path / "docker")
    for server in (ours, docker):
        push_image(server, "a", "x")
    assert ours.call(*request_).status == known.get(request_, docker.call(*request_).status)


def skopeo(*arguments):
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo(serve, serve_docker, tmp_path):
    """From Docker's registry to ours, to a folder, back, and away."""
    ours, docker = serve(tmp_path / "ours", "--delete"), serve_docker(tmp_path / "docker")
    found = push_image(docker, "a/b", "v1", os.urandom(2 << 20))
    skopeo("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
           f"docker://{docker.address}/a/b:v1", f"docker://{ours.address}/c/d:v2")
    inspect = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{ours.address}/c/d@{found}")
    assert digest(inspect.encode()) == found
    skopeo("copy", "--preserve-digests", "--src-tls-verify=false",
           f"docker://{ours.address}/c/d:v2", f"oci:{tmp_path}/layout:x")
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:x", f"docker://{ours.address}/e:v3")
    assert ours.call("GET", "/v2/e/manifests/v3").headers["Docker-Content-Digest"] == found
    skopeo("sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", f"{ours.address}/c/d", str(tmp_path))
    skopeo("delete", "--tls-verify=false", f"docker://{ours.address}/c/d:v2")
    assert ours.call("GET", "/v2/c/d/manifests/v2").status == 404


def test_skopeo_moves_indexes_and_whole_repositories(serve, tmp_path):
    """Within one registry by mounts; from one to another by sync; tags are listed and deleted."""
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    ours, other = serve(tmp_path / "ours", "--delete"), serve(tmp_path / "other")
    manifests = [pushing.image(architecture.encode())[0] for architecture in ("amd64", "arm64")]
    for architecture in ("amd64", "arm64"):
        push_image(ours, "a", architecture, architecture.encode())
    index = json.dumps({"schemaVersion": 2, "mediaType": pushing.OCI_INDEX, "manifests": [
        pushing.describe(each, OCI_MANIFEST, platform={"os": "linux", "architecture": architecture})
        for each, architecture in zip(manifests, ("amd64", "arm64"), strict=True)]}).encode()
    assert ours.call("PUT", "/v2/a/manifests/all", index, Content_Type=pushing.OCI_INDEX).status == 201

    skopeo("copy", "--all", "--preserve-digests", *plain, f"docker://{ours.address}/a:all",
           f"docker://{ours.address}/b/c:x")
    assert ours.call("GET", "/v2/b/c/manifests/x").body == index
    assert json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{ours.address}/a"))["Tags"] == [
        "all", "amd64", "arm64"]

    skopeo("sync", "--all", "--preserve-digests", *plain, "--src", "docker", "--dest", "docker", f"{ours.address}/a",
           f"{other.address}/mirror")
    assert other.call("GET", "/v2/mirror/a/tags/list").json["tags"] == ["all", "amd64", "arm64"]
    for found in (digest(index), *map(digest, manifests)):
        assert other.call("GET", f"/v2/mirror/a/manifests/{found}").status == 200

    skopeo("delete", "--tls-verify=false", f"docker://{ours.address}/a:amd64")
    assert ours.call("GET", "/v2/a/tags/list").json["tags"] == ["all", "arm64"]


def test_referrers_that_an_older_client_listed_by_a_tag(serve, serve_docker, tmp_path):
    """Docker's registry knows no referrers: clients keep an index at a tag. It is served once ours has the store."""
    root = tmp_path / "store"
    docker = serve_docker(root)
    subject = pushing.describe(pushing.image()[0], OCI_MANIFEST)
    push_image(docker, "a", "x")
    signature = push_image(docker, "a", None, b"signature", subject=subject)
    index = {"schemaVersion": 2, "mediaType": pushing.OCI_INDEX, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": signature, "size": 1}, subject]}
    assert docker.call("PUT", f"/v2/a/manifests/{subject['digest'].replace(':', '-')}", json.dumps(index).encode(),
                       Content_Type=pushing.OCI_INDEX).status == 201
    docker.kill()
    found = serve(root).call("GET", f"/v2/a/referrers/{subject['digest']}").json["manifests"]
    assert [each["digest"] for each in found] == [signature]


def test_a_store_that_ours_collected_is_whole_for_docker(serve, serve_docker, tmp_path):
    root = tmp_path / "store"
    ours = serve(root, "--delete")
    push_image(ours, "a", "kept", b"kept")
    push_image(ours, "a", "gone", b"gone")
    push_blob(ours, "a", b"orphan")
    ours.call("DELETE", f"/v2/a/manifests/{digest(pushing.image(b'gone')[0])}")
    for path in (root / "docker/registry/v2/blobs").rglob("data"):
        os.utime(path, (1, 1))
    subprocess.run([*SHOAL, "gc", "--root", str(root)], check=True, timeout=120)
    assert ours.call("HEAD", f"/v2/a/blobs/{digest(b'gone')}").status == 404
    ours.kill()
    docker = serve_docker(root)
    assert docker.call("GET", "/v2/a/manifests/kept", Accept=OCI_MANIFEST).status == 200
    assert docker.call("GET", f"/v2/a/blobs/{digest(b'kept')}").body == b"kept"
    assert docker.call("GET", f"/v2/a/blobs/{digest(b'orphan')}").status == 404
