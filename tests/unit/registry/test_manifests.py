"""Which manifests are taken, and what they need."""

import json

import pytest

from shoal.registry import manifests
from shoal.registry.errors import ManifestInvalid

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def image(**changes):
    layers = [{"digest": B}, {"digest": B}]
    return {"schemaVersion": 2, "config": {"digest": A, "mediaType": "c"}, "layers": layers, **changes}


def test_an_image():
    found = manifests.parse(json.dumps(image(subject={"digest": C})).encode(), manifests.OCI_MANIFEST)
    assert (found.blobs, found.manifests, found.subject, found.artifact_type) == ((A, B), (), C, "c")


def test_an_index():
    body = {"schemaVersion": 2, "manifests": [{"digest": A}], "artifactType": "x"}
    found = manifests.parse(json.dumps(body).encode(), manifests.OCI_INDEX)
    assert (found.blobs, found.manifests, found.artifact_type) == ((), (A,), "x")


def test_layers_that_lie_elsewhere_are_not_needed():
    body = image(layers=[{"digest": B, "urls": ["https://example.com"]}])
    assert manifests.parse(json.dumps(body).encode(), manifests.OCI_MANIFEST).blobs == (A,)


@pytest.mark.parametrize(("body", "kind"), [
    (image(schemaVersion=1), manifests.OCI_MANIFEST),
    (image(mediaType=manifests.OCI_INDEX), manifests.OCI_MANIFEST),
    (image(), manifests.DOCKER_MANIFEST),
    (image(), manifests.SCHEMA_1),
    (image(), "application/json"),
    (image(), manifests.OCI_INDEX),
    (image(config={"digest": "../../etc/passwd"}), manifests.OCI_MANIFEST),
    (image(layers=None), manifests.OCI_MANIFEST),
    (image(layers=[1]), manifests.OCI_MANIFEST),
    ([], manifests.OCI_MANIFEST),
])
def test_what_is_refused(body, kind):
    with pytest.raises(ManifestInvalid):
        manifests.parse(json.dumps(body).encode(), kind)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null"])
def test_what_is_no_json(content):
    with pytest.raises(ManifestInvalid):
        manifests.parse(content, manifests.OCI_MANIFEST)


@pytest.mark.parametrize(("body", "kind"), [
    (image(), manifests.OCI_MANIFEST),
    ({"schemaVersion": 2, "manifests": []}, manifests.OCI_INDEX),
    (image(mediaType=manifests.DOCKER_MANIFEST), manifests.DOCKER_MANIFEST),
    ({"schemaVersion": 1, "fsLayers": [{"blobSum": A}]}, manifests.SCHEMA_1),
])
def test_the_type_of_what_is_stored(body, kind):
    assert manifests.stored(json.dumps(body).encode()).media_type == kind


def test_layers_of_schema_1_are_known_to_collection():
    body = {"schemaVersion": 1, "fsLayers": [{"blobSum": A}, {"blobSum": B}]}
    assert manifests.stored(json.dumps(body).encode()).blobs == (A, B)
