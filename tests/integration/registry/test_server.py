"""What our server does besides the workflows of `conformance`: codes and headers, the catalog, metrics."""

import json
import os

import pytest

from tests.integration.registry import pushing
from tests.integration.registry.pushing import OCI_INDEX, OCI_MANIFEST, digest, push_blob, push_image

MISSING = "sha256:" + "0" * 64


@pytest.fixture
def server(serve, tmp_path):
    return serve(tmp_path / "store", "--delete")


def test_pull(server):
    """Blobs and manifests, by HEAD and GET, there and missing."""
    assert server.call("GET", "/v2/").headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    layer = os.urandom(3000)
    found = push_image(server, "a/b", "v1", layer)
    manifest = pushing.image(layer)[0]
    for reference in (found, "v1"):
        for method, body in (("GET", manifest), ("HEAD", b"")):
            answer = server.call(method, f"/v2/a/b/manifests/{reference}")
            assert (answer.status, answer.body, answer.headers["Docker-Content-Digest"]) == (200, body, found)
            assert answer.headers["Content-Type"] == OCI_MANIFEST
            assert int(answer.headers["Content-Length"]) == len(manifest)
    assert server.call("GET", f"/v2/a/b/manifests/{found}", If_None_Match=f'"{found}"').status == 304
    blob = f"/v2/a/b/blobs/{digest(layer)}"
    assert server.call("GET", blob).body == layer
    head = server.call("HEAD", blob)
    assert (head.status, head.headers["Content-Length"], head.headers["Docker-Content-Digest"]) == (
        200, "3000", digest(layer))
    for path, code in ((f"a/b/blobs/{MISSING}", "BLOB_UNKNOWN"), ("a/b/manifests/none", "MANIFEST_UNKNOWN"),
                       (f"a/b/manifests/{MISSING}", "MANIFEST_UNKNOWN"), ("a/b/manifests/.none", "MANIFEST_UNKNOWN"),
                       (f"other/blobs/{digest(layer)}", "BLOB_UNKNOWN")):
        assert server.call("HEAD", f"/v2/{path}").status == 404
        answer = server.call("GET", f"/v2/{path}")
        assert (answer.status, answer.code) == (404, code)
    for path, code in (("A/manifests/x", "NAME_INVALID"), ("a/blobs/sha256:bad", "DIGEST_INVALID")):
        answer = server.call("GET", f"/v2/{path}")
        assert (answer.status, answer.code) == (400, code)


def test_cancel(server):
    where = server.call("POST", "/v2/a/blobs/uploads/").headers["Location"]
    assert server.call("DELETE", where).status == 204
    assert server.call("PATCH", where, b"x").status == 404
    assert server.call("GET", where.replace("/v2/a/", "/v2/b/")).status == 404
    assert server.call("GET", "/v2/a/blobs/uploads/..%2f..%2fx").status == 404


def test_push_manifests(server):
    manifest, config, layer = pushing.image()
    path = f"/v2/a/manifests/{digest(manifest)}"
    assert server.call("PUT", path, manifest, Content_Type=OCI_MANIFEST).code == "MANIFEST_BLOB_UNKNOWN"
    assert server.call("GET", path).status == 404
    for each in (config, layer):
        push_blob(server, "a", each)
    assert server.call("PUT", path, manifest, Content_Type=OCI_MANIFEST).status == 201
    for reference, body, kind, code in (
        ("sha256:baddigest", manifest, OCI_MANIFEST, "DIGEST_INVALID"),
        (MISSING, manifest, OCI_MANIFEST, "DIGEST_INVALID"),
        ("-x", manifest, OCI_MANIFEST, "TAG_INVALID"), ("x", b"{", OCI_MANIFEST, "MANIFEST_INVALID"),
        ("x", manifest, "text/plain", "MANIFEST_INVALID"),
    ):
        answer = server.call("PUT", f"/v2/a/manifests/{reference}", body, Content_Type=kind)
        assert (answer.status, answer.code) == (400, code)
    large = manifest + b" " * (4 << 20)
    assert server.call("PUT", "/v2/a/manifests/x", iter([large]), Content_Type=OCI_MANIFEST).status == 413
    other = f"/v2/a/manifests/{digest(manifest, 'sha512')}"
    assert server.call("PUT", other, manifest, Content_Type=OCI_MANIFEST).status == 201
    assert server.call("GET", other).body == manifest


def test_one_large_body(server):
    content = os.urandom(3 << 20)
    answer = server.call("POST", f"/v2/a/blobs/uploads/?digest={digest(content)}", content)
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/a/blobs/{digest(content)}")
    assert server.call("GET", answer.headers["Location"]).body == content


def test_uploads_that_make_no_sense(server):
    where = server.call("POST", "/v2/a/blobs/uploads/").headers["Location"]
    answer = server.call("PUT", f"{where}?digest={MISSING}", b"else")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert server.call("GET", where).code == "BLOB_UPLOAD_UNKNOWN"
    assert server.call("POST", "/v2/a/blobs/uploads/?digest=sha256:bad", b"else").status == 400
    where = server.call("POST", "/v2/a/blobs/uploads/").headers["Location"]
    assert server.call("PUT", where, b"else").code == "DIGEST_INVALID"
    assert server.call("PATCH", where, b"0123", Content_Range="0-9").code == "BLOB_UPLOAD_INVALID"


def test_an_index_of_what_is_not_there(server):
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX,
             "manifests": [pushing.describe(pushing.image()[0], OCI_MANIFEST)]}
    body = json.dumps(index).encode()
    assert server.call("PUT", "/v2/a/manifests/all", body, Content_Type=OCI_INDEX).code == "MANIFEST_BLOB_UNKNOWN"


def test_tags(server):
    assert server.call("GET", "/v2/a/tags/list").code == "NAME_UNKNOWN"
    for tag in ("v3", "v1", "V2", "v2"):
        push_image(server, "a", tag)
    assert server.call("GET", "/v2/a/tags/list").json == {"name": "a", "tags": ["V2", "v1", "v2", "v3"]}
    page = server.call("GET", "/v2/a/tags/list?n=2")
    assert page.json["tags"] == ["V2", "v1"]
    link = page.headers["Link"]
    assert link.endswith('; rel="next"')
    rest = server.call("GET", link[1:link.index(">")])
    assert (rest.json["tags"], rest.headers.get("Link")) == (["v2", "v3"], None)
    assert server.call("GET", "/v2/a/tags/list?n=0").json["tags"] == []
    assert server.call("GET", "/v2/a/tags/list?n=x").code == "PAGINATION_NUMBER_INVALID"


def test_catalog(server):
    for name in ("b", "a/c", "a-b", "a"):
        push_image(server, name, "x")
    assert server.call("GET", "/v2/_catalog").json == {"repositories": ["a", "a-b", "a/c", "b"]}
    page = server.call("GET", "/v2/_catalog?n=3&last=a")
    assert (page.json["repositories"], page.headers.get("Link")) == (["a-b", "a/c", "b"], None)


def test_deletion_is_off_where_it_was_not_asked_for(serve, tmp_path):
    server = serve(tmp_path / "kept")
    push_image(server, "a", "one")
    for path in ("manifests/one", f"blobs/{digest(b'layer')}"):
        answer = server.call("DELETE", f"/v2/a/{path}")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert server.call("GET", "/v2/a/manifests/one").status == 200


def test_metrics(server):
    push_image(server, "a", "one")
    server.call("POST", "/v2/a/blobs/uploads/")
    text = server.call("GET", "/metrics").body.decode()
    assert "registry_uploads_open 1.0" in text
    assert 'registry_http_requests_total{code="201",method="PUT",route="put_manifest"} 1.0' in text


def test_what_is_no_route(server):
    assert server.call("GET", "/v2/a/nothing").status == 404
    assert server.call("POST", "/v2/a/tags/list").code == "UNSUPPORTED"
