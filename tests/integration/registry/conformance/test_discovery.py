"""Content discovery: the list of tags, and referrers."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.integration.registry.conformance import contents
from tests.integration.registry.conformance.test_contents import push_manifest
from tests.integration.registry.pushing import OCI_INDEX, digest, push_blob, push_image

TAGS = ["test0", "test1", "test2", "test3"]


@pytest.fixture
def tagged(registry, name):
    for number in (2, 0, 3, 1):  # in no order
        push_image(registry, name, TAGS[number])
    return name


def test_tags(registry, tagged):
    answer = registry.call("GET", f"/v2/{tagged}/tags/list")
    assert (answer.status, answer.json) == (200, {"name": tagged, "tags": TAGS})


def test_no_repository(registry, name):
    assert registry.call("GET", f"/v2/{name}/tags/list").status == 404


@pytest.mark.parametrize(("query", "tags"), [
    ("n=2", TAGS[:2]), ("n=0", []), ("n=100", TAGS), ("last=test1", TAGS[2:]), ("n=1&last=test1", ["test2"]),
    ("last=test11", TAGS[2:]), ("last=test3", []),
])
def test_pages_of_tags(registry, tagged, query, tags):
    answer = registry.call("GET", f"/v2/{tagged}/tags/list?{query}")
    assert (answer.status, answer.json["tags"] or []) == (200, tags)


def test_links_lead_through_the_pages(registry, tagged):
    path, seen = f"/v2/{tagged}/tags/list?n=3", []
    while path:
        answer = registry.call("GET", path)
        seen += answer.json["tags"]
        link = answer.headers["Link"]
        assert link is None or link.endswith('>; rel="next"')
        path = link and link[1:link.index(">")].removeprefix(f"http://{registry.address}")
    assert seen == TAGS


def referrers(registry, name, subject, query=""):
    answer = registry.call("GET", f"/v2/{name}/referrers/{subject}{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, OCI_INDEX)
    return answer.json["manifests"], answer.headers["OCI-Filters-Applied"]


def by_digest(descriptors):
    return sorted(descriptors, key=lambda each: each["digest"])


@pytest.mark.parametrize("kind", ["referrers", "index with a referrer", "referrer of what is not there"])
def test_referrers(registry, name, kind):
    content = contents.make(kind)
    for blob in content.blobs.values():
        push_blob(registry, name, blob)
    for found, body in content.manifests.items():
        push_manifest(registry, name, found, found, body)
    ((subject, wanted),) = content.referrers.items()
    assert by_digest(referrers(registry, name, subject)[0]) == by_digest(wanted)
    for kind in {each["artifactType"] for each in wanted}:
        some, filters = referrers(registry, name, subject, f"?artifactType={quote(kind)}")
        assert filters == "artifactType"
        assert by_digest(some) == by_digest(each for each in wanted if each["artifactType"] == kind)
    assert referrers(registry, name, subject, "?artifactType=application/none")[0] == []
    gone = wanted[0]["digest"]
    assert registry.call("DELETE", f"/v2/{name}/manifests/{gone}").status == 202
    assert gone not in [each["digest"] for each in referrers(registry, name, subject)[0]]


def test_a_push_says_that_its_subject_was_seen(registry, name):
    content = contents.make("referrer of what is not there")
    for blob in content.blobs.values():
        push_blob(registry, name, blob)
    ((found, body),) = content.manifests.items()
    answer = registry.call("PUT", f"/v2/{name}/manifests/{found}", body, Content_Type=contents.OCI_MANIFEST)
    assert [answer.headers["OCI-Subject"]] == list(content.referrers)


def test_no_referrers(registry, name):
    assert referrers(registry, name, digest(b"of nobody"))[0] == []


def test_referrers_of_no_digest(registry, name):
    push_image(registry, name, "x")
    assert registry.call("GET", f"/v2/{name}/referrers/none").status == 400
