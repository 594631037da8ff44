"""Pull: what is there, parts of it, and what is not there."""

from __future__ import annotations

import os

import pytest

from tests.integration.registry.pushing import OCI_MANIFEST, digest, image, push_blob

MISSING = "sha256:" + "0" * 64
SIZE = 2048


def test_the_base(registry):
    assert registry.call("GET", "/v2/").status == 200


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("path", [f"blobs/{MISSING}", f"manifests/{MISSING}", "manifests/missing"])
def test_missing(registry, name, path, method):
    push_blob(registry, name, b"so that the repository is there")
    answer = registry.call(method, f"/v2/{name}/{path}")
    assert answer.status == 404
    if method == "GET":
        assert answer.code in ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN")


def test_a_digest_that_is_none(registry, name):
    manifest, *blobs = image()
    for each in blobs:
        push_blob(registry, name, each)
    path = f"/v2/{name}/manifests/sha256:baddigeststring"
    assert registry.call("PUT", path, manifest, Content_Type=OCI_MANIFEST).status == 400
    assert registry.call("GET", path).status in (400, 404)


@pytest.mark.parametrize(("wanted", "begin", "end"), [
    ("500-1499", 500, 1500), ("500-", 500, SIZE), ("-500", SIZE - 500, SIZE), ("2000-5000", 2000, SIZE),
])
def test_ranges(registry, name, wanted, begin, end):
    content = os.urandom(SIZE)
    answer = registry.call("GET", f"/v2/{name}/blobs/{push_blob(registry, name, content)}", Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, content[begin:end])
    assert answer.headers["Content-Range"] in (f"bytes {begin}-{end - 1}/{SIZE}", f"bytes {begin}-{end - 1}/*")
    assert answer.headers["Content-Length"] == str(end - begin)


@pytest.mark.parametrize("wanted", ["500-0", "5000-10000"])
def test_ranges_that_are_not_there(registry, name, wanted):
    found = push_blob(registry, name, os.urandom(SIZE))
    assert registry.call("GET", f"/v2/{name}/blobs/{found}", Range=f"bytes={wanted}").status == 416


def test_blobs_of_sha512(registry, name):
    content = os.urandom(SIZE)
    found = push_blob(registry, name, content, "sha512")
    assert found == digest(content, "sha512")
    assert registry.call("GET", f"/v2/{name}/blobs/{found}").body == content
