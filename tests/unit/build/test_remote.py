"""What is fetched for a build."""

from __future__ import annotations

import gzip

import pytest

from shoal.engine.build.remote import kind_of

BYTES = "application/octet-stream"


@pytest.mark.parametrize(("told", "head", "kind"), [
    pytest.param(BYTES, b"FROM busybox\nRUN \xc3\xa4\n", "text/plain", id="a Dockerfile"),
    pytest.param(BYTES, gzip.compress(b"x"), BYTES, id="gzip"),
    pytest.param(BYTES, b"./\0\0\0", BYTES, id="a tar"),
    pytest.param(BYTES, b"", BYTES, id="nothing"),
    pytest.param("application/x-tar", b"text", "application/x-tar", id="what the server says counts"),
    pytest.param("text/plain", b"\0", "text/plain", id="of texts too"),
])
def test_text_is_text_whatever_the_server_says(told: str, head: bytes, kind: str) -> None:
    assert kind_of(told, head) == kind
