"""docker import: the tar of a root file system, from the client or from where a URL leads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]

PORT = 5009


@pytest.fixture
def served(host: Machine) -> Iterator[Machine]:
    """With busybox's file system as a tar, on a web server of the machine's."""
    folder = host.root / "web"
    folder.mkdir(exist_ok=True)
    host.docker("create", "--name", "source", "busybox")
    host.docker("export", "--output", str(folder / "rootfs.tar"), "source")
    try:
        with host.serving(folder, PORT):
            yield host
    finally:
        host.docker("image", "prune", "--force")


def test_from_a_url(served: Machine) -> None:
    said = served.docker("import", "--change", "CMD [\"echo\", \"hello\"]", "--message", "why", "--platform",
                         "linux/amd64/v2", f"http://127.0.0.1:{PORT}/rootfs.tar", "imported:v1")
    made = served.inspect("imported:v1")
    assert made["Id"] in said
    assert (made["Comment"], made["Architecture"], made["Variant"]) == ("why", "amd64", "v2")
    assert served.docker("run", "--rm", "imported:v1") == "hello"
    served.docker("rmi", "imported:v1")


def test_what_cannot_be_had_is_said(served: Machine) -> None:
    images = served.docker("images", "--quiet")
    assert "404" in served.docker("import", f"http://127.0.0.1:{PORT}/nothing.tar", code=1)
    assert "failed to get" in served.docker("import", "http://127.0.0.1:1/rootfs.tar", code=1)
    assert served.call("POST", "/images/create?fromSrc=file:///etc/passwd", raw=b"")[0] == 400
    assert served.call("POST", "/images/create", raw=b"")[0] == 400
    assert served.call("POST", "/images/create?fromSrc=-&platform=windows", raw=b"")[0] == 400
    (served.root / "web" / "half.tar").write_bytes((served.root / "web" / "rootfs.tar").read_bytes()[:100_000])
    assert served.docker("import", f"http://127.0.0.1:{PORT}/half.tar", code=1)
    assert served.docker("images", "--quiet") == images
    assert not list((served.root / "data" / "images" / "blobs" / "tmp").iterdir())


def test_names_that_would_be_mistaken(host: Machine) -> None:
    status, said = host.call("POST", "/images/busybox/tag?repo=sha256&tag=v1")
    assert (status, said["message"]) == (
        400, "refusing to create an ambiguous tag using digest algorithm as name")
    assert host.call("POST", "/images/busybox/tag?repo=")[0] == 400
