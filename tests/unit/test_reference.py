"""References mean what Docker takes them to mean."""

import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.reference import as_id_prefix, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "complete", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35", "busybox:1.35"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("example.org:443/a/b/c:v1", "example.org:443/a/b/c:v1", "example.org:443/a/b/c:v1"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
    ],
)
def test_means_and_shows(text: str, complete: str, familiar: str) -> None:
    found = parse(text)
    assert str(found) == complete
    assert found.familiar == familiar
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", "a@", "@" + DIGEST, "a@sha256:12", "a@md5:" + "a" * 32, "Upper", "a/Upper", "a b", "a//b",
        "-a", "a:-tag", "a:" + "t" * 129, "../a", "a/../b", "/a", "a/", "a" * 300, "b" * 64, "a:b:c", "a\n", "a\0",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("abc", "abc"), ("sha256:abc", "abc"), ("xyz", None), ("", None), ("a" * 65, None), ("ABC", None)],
)
def test_id_prefix(text: str, prefix: str | None) -> None:
    assert as_id_prefix(text) == prefix
