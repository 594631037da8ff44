"""Every kind of content, through all four workflows: push, pull, discovery, management."""

from __future__ import annotations

import json

import pytest

from tests.integration.registry.conformance import contents, ways
from tests.integration.registry.pushing import OCI_INDEX, OCI_MANIFEST, push_blob

CASES = [*((kind, "sha256") for kind in contents.KINDS), ("index", "sha512")]


@pytest.mark.parametrize(("kind", "using"), CASES, ids=lambda each: each.replace(",", ""))
def test_from_push_to_deletion(registry, name, kind, using):
    content = contents.make(kind, using)
    for blob in content.blobs.values():
        push_blob(registry, name, blob, using)
    for found, body in content.manifests.items():
        push_manifest(registry, name, found, found, body)
    for tag, found in content.tags.items():
        push_manifest(registry, name, tag, found, content.manifests[found])

    for reference, found in [*content.tags.items(), *zip(content.manifests, content.manifests, strict=True)]:
        pulls_manifest(registry, name, reference, found, content.manifests[found])
    for found, blob in content.blobs.items():
        assert registry.call("GET", f"/v2/{name}/blobs/{found}").body == blob
        head = registry.call("HEAD", f"/v2/{name}/blobs/{found}")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(blob)))

    listed = registry.call("GET", f"/v2/{name}/tags/list")
    assert listed.status in (200, 404)
    assert set(listed.json.get("tags") or []) == set(content.tags)

    for part, found in [*(("manifests", each) for each in reversed(content.manifests)),
                        *(("blobs", each) for each in content.blobs)]:
        assert registry.call("DELETE", f"/v2/{name}/{part}/{found}").status == 202
        assert registry.call("HEAD", f"/v2/{name}/{part}/{found}", Accept=f"{OCI_INDEX}, {OCI_MANIFEST}").status == 404


def push_manifest(registry, name, reference, found, body):
    kind = json.loads(body)["mediaType"]
    answer = registry.call("PUT", f"/v2/{name}/manifests/{reference}", body, Content_Type=kind)
    assert answer.status == 201, answer.body
    assert answer.headers["Docker-Content-Digest"] in (None, found)
    got = registry.call("GET", ways.path_of(registry, answer), Accept=kind)
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, body, kind)


def pulls_manifest(registry, name, reference, found, body):
    for method, expected in (("GET", body), ("HEAD", b"")):
        answer = registry.call(method, f"/v2/{name}/manifests/{reference}", Accept=f"{OCI_INDEX}, {OCI_MANIFEST}")
        assert (answer.status, answer.body) == (200, expected)
        assert answer.headers["Content-Type"] == json.loads(body)["mediaType"]
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["Docker-Content-Digest"] in (None, found)
