"""Blobs and images to push, and requests that push them."""

from __future__ import annotations

import hashlib
import json

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(content, using="sha256"):
    return f"{using}:{hashlib.new(using, content).hexdigest()}"


def push_blob(server, name, content, using="sha256"):
    """POST, then PUT with the content."""
    found = digest(content, using)
    begun = server.call("POST", f"/v2/{name}/blobs/uploads/")
    assert begun.status == 202, begun.body
    location = begun.headers["Location"].replace(f"http://{server.address}", "")
    mark = "&" if "?" in location else "?"
    done = server.call("PUT", f"{location}{mark}digest={found}", content, Content_Type="application/octet-stream")
    assert done.status == 201, done.body
    return found


def describe(content, kind, **more):
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def image(layer=b"layer", **more):
    """The manifest of an image of one layer, and its two blobs."""
    rootfs = {"type": "layers", "diff_ids": [digest(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": describe(config, CONFIG),
            "layers": [describe(layer, LAYER)], **more}
    return json.dumps(body).encode(), config, layer


def push_image(server, name, tag, layer=b"layer", **more):
    """Its manifest's digest."""
    manifest, *blobs = image(layer, **more)
    for each in blobs:
        push_blob(server, name, each)
    done = server.call("PUT", f"/v2/{name}/manifests/{tag or digest(manifest)}", manifest, Content_Type=OCI_MANIFEST)
    assert done.status == 201, done.body
    return digest(manifest)
