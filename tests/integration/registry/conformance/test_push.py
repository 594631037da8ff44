"""Push: blobs in every way that there is, mounts, uploads that are cancelled."""

from __future__ import annotations

import os

import pytest

from tests.integration.registry.conformance import ways
from tests.integration.registry.pushing import digest, push_blob

ALGORITHMS = pytest.mark.parametrize("using", ["sha256", "sha512"])
WAYS = pytest.mark.parametrize("way", ways.ALL, ids=lambda way: way.__name__)


def holds(registry, answer, content, found):
    """The answer leads to the content, and is right about it."""
    assert answer.status == 201, answer.body
    assert answer.headers["Docker-Content-Digest"] in (None, found)
    assert registry.call("GET", ways.path_of(registry, answer)).body == content


@ALGORITHMS
@WAYS
def test_push_a_blob(registry, name, way, using):
    content = os.urandom(4000)
    found = digest(content, using)
    holds(registry, way(registry, name, content, found), content, found)
    head = registry.call("HEAD", f"/v2/{name}/blobs/{found}")
    assert (head.status, head.headers["Content-Length"]) == (200, "4000")


@ALGORITHMS
@pytest.mark.parametrize("content", [b"", b"{}"], ids=["empty", "json"])
def test_push_well_known_content(registry, name, content, using):
    found = digest(content, using)
    holds(registry, ways.post_put(registry, name, content, found), content, found)


@ALGORITHMS
@WAYS
def test_push_what_is_not_what_it_claims(registry, name, way, using):
    content = os.urandom(4000)
    found = digest(content, using)
    assert way(registry, name, content + b"oh no", found).status == 400
    for each in (found, digest(content + b"oh no", using)):
        assert registry.call("HEAD", f"/v2/{name}/blobs/{each}").status == 404


def test_mount(registry, name):
    found = push_blob(registry, f"{name}/source", b"shared")
    answer = registry.call("POST", f"/v2/{name}/blobs/uploads/?mount={found}&from={name}/source")
    holds(registry, answer, b"shared", found)


@pytest.mark.parametrize("query", [
    pytest.param("mount={found}", id="anonymous"),
    pytest.param("mount={found}&from={name}/none", id="from nowhere"),
    pytest.param("mount={missing}&from={name}/source", id="of what is not there"),
])
def test_what_cannot_be_mounted_is_uploaded(registry, name, query):
    """A registry may look for an anonymous mount's source, too; neither of these does."""
    found, missing = push_blob(registry, f"{name}/source", b"shared"), digest(b"missing")
    query = query.format(found=found, missing=missing, name=name)
    answer = registry.call("POST", f"/v2/{name}/blobs/uploads/?{query}")
    assert answer.status == 202
    where = ways.with_digest(ways.path_of(registry, answer), found)
    holds(registry, registry.call("PUT", where, b"shared"), b"shared", found)


def test_an_upload_is_cancelled(registry, name):
    where = ways.begin(registry, name)
    assert registry.call("DELETE", where, Content_Length="0").status == 204
    assert registry.call("GET", where).status == 404


def test_the_status_of_an_upload(registry, name):
    where = ways.begin(registry, name)
    status = registry.call("GET", where)
    assert (status.status, status.headers["Range"]) == (204, "0-0")
    sent = registry.call("PATCH", where, b"0123456789", Content_Type="application/octet-stream")
    status = registry.call("GET", ways.path_of(registry, sent))
    assert (status.status, status.headers["Range"]) == (204, "0-9")
    assert ways.path_of(registry, status)
