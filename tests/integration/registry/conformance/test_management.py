"""Content management: the deletion of tags, manifests and blobs."""

from __future__ import annotations

import pytest

from tests.integration.registry.pushing import OCI_MANIFEST, digest, push_image


@pytest.fixture
def found(registry, name):
    """The digest of an image that has the tags one and two."""
    first = push_image(registry, name, "one")
    assert push_image(registry, name, "two") == first
    return first


def is_there(registry, name, reference):
    return registry.call("HEAD", f"/v2/{name}/manifests/{reference}", Accept=OCI_MANIFEST).status == 200


def test_a_tag_goes_alone(registry, name, found):
    assert registry.call("DELETE", f"/v2/{name}/manifests/one").status == 202
    assert [is_there(registry, name, each) for each in ("one", "two", found)] == [False, True, True]
    assert registry.call("GET", f"/v2/{name}/tags/list").json["tags"] == ["two"]


def test_a_manifest_goes_with_its_tags(registry, name, found):
    assert registry.call("DELETE", f"/v2/{name}/manifests/{found}").status == 202
    assert [is_there(registry, name, each) for each in ("one", "two", found)] == [False] * 3
    assert registry.call("GET", f"/v2/{name}/tags/list").json.get("tags") in ([], None)


def test_a_blob_goes(registry, name, found):
    blob = f"/v2/{name}/blobs/{digest(b'layer')}"
    assert registry.call("DELETE", blob).status == 202
    assert registry.call("HEAD", blob).status == 404
    assert registry.call("GET", blob).status == 404


@pytest.mark.parametrize("path", ["manifests/none", f"manifests/{digest(b'none')}", f"blobs/{digest(b'none')}"])
def test_what_is_not_there(registry, name, found, path):
    assert registry.call("DELETE", f"/v2/{name}/{path}").status == 404


def test_deleted_and_pushed_again(registry, name, found):
    assert registry.call("DELETE", f"/v2/{name}/manifests/{found}").status == 202
    assert push_image(registry, name, "one") == found
    assert is_there(registry, name, "one")
