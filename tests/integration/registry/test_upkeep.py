"""What lies in a store and nobody needs any more; and a store that cannot be written to."""

import json
import os

import pytest

from shoal.registry.collector import collect
from shoal.registry.errors import TooMany
from shoal.registry.names import Repository
from shoal.registry.store import Store
from shoal.registry.uploads import Uploads
from tests.integration.registry import pushing
from tests.integration.registry.pushing import OCI_MANIFEST, digest, push_blob, push_image

READ_ONLY = ("unshare", "--mount", "--propagation=private", "sh", "-ec",
             'mount --bind "$0" "$0"; mount -o remount,ro,bind "$0"; exec "$@"')


def test_a_read_only_store_is_served(serve, tmp_path):
    root = tmp_path / "store"
    writer = serve(root, "--delete")
    found = push_image(writer, "a", "x")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    reader = serve(root, "--delete", before=(*READ_ONLY, str(root)))
    for method in ("HEAD", "GET"):
        assert reader.call(method, "/v2/a/manifests/x").headers["Docker-Content-Digest"] == found
        assert reader.call(method, f"/v2/a/blobs/{digest(b'layer')}").status == 200
    assert reader.call("GET", "/v2/a/tags/list").json["tags"] == ["x"]
    assert reader.call("GET", "/v2/_catalog").json["repositories"] == ["a"]
    manifest = pushing.image()[0]
    for method, path, body in (
        ("POST", "blobs/uploads/", b""), ("POST", f"blobs/uploads/?mount={digest(b'layer')}&from=a", b""),
        ("PUT", "manifests/y", manifest), ("DELETE", "manifests/x", b""), ("DELETE", f"blobs/{digest(b'layer')}", b""),
    ):
        answer = reader.call(method, f"/v2/a/{path}", body, Content_Type=OCI_MANIFEST)
        assert (answer.status, answer.code) == (405, "UNSUPPORTED"), path
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def artifact(server, name, subject, kind):
    """Push one that has `subject`; its digest."""
    config = push_blob(server, name, b"{}")
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
                       "config": {"mediaType": "test/config", "digest": config, "size": 2}, "layers": [],
                       "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}}).encode()
    assert server.call("PUT", f"/v2/{name}/manifests/{digest(body)}", body, Content_Type=OCI_MANIFEST).status == 201
    return digest(body)


def test_links_of_referrers_go_with_them(serve, tmp_path):
    """By deletion, and by collection where a crash or another program left them."""
    root = tmp_path / "store"
    server, store, name = serve(root, "--delete"), Store(root), Repository("a")
    subject, other = push_image(server, "a", "x"), push_image(server, "a", "y", b"other")
    gone, left, kept = (artifact(server, "a", subject, "one"), artifact(server, "a", subject, "two"),
                        artifact(server, "a", other, "one"))
    assert set(store.referrer_links(name)) == {(subject, gone), (subject, left), (other, kept)}
    assert server.call("DELETE", f"/v2/a/manifests/{gone}").status == 202
    assert set(store.referrer_links(name)) == {(subject, left), (other, kept)}
    store.layout.revision(name, left).unlink()
    collect(store)
    assert set(store.referrer_links(name)) == {(other, kept)}
    assert not store.layout.referrers(name, subject).exists()
    found = server.call("GET", f"/v2/a/referrers/{other}").json["manifests"]
    assert [each["digest"] for each in found] == [kept]


@pytest.mark.parametrize("idle", [True, False])
async def test_uploads_of_other_processes_count(tmp_path, idle):
    """Where too many lie there, those that were idle for an hour make room."""
    store, name = Store(tmp_path), Repository("a/b")
    before = [await Uploads(store).start(name) for _ in range(2)]
    uploads = Uploads(store, most=3)
    assert await uploads.purge(7 * 24 * 3600) == 0
    assert len(uploads) == 2
    await uploads.find(name, before[0].id)
    assert len(uploads) == 2
    mine = await uploads.start(name)
    if idle:
        for path in (before[1].data, before[1].folder):
            os.utime(path, (1, 1))
        await uploads.start(name)
        assert [each.folder.exists() for each in (*before, mine)] == [True, False, True]
    else:
        with pytest.raises(TooMany):
            await uploads.start(name)
        await uploads.cancel(mine)
        await uploads.start(name)
    assert len(uploads) == 3
