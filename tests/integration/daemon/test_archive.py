"""docker cp and docker export, from and into containers that run and that do not; nothing leads outside of them."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]


@pytest.fixture(params=["running", "created", "exited"])
def box(host: Machine, request: pytest.FixtureRequest) -> str:
    """A container with a volume, in each state."""
    words = ("--name", "box", "-v", "data:/data", "busybox")
    if request.param == "running":
        host.docker("run", "-d", *words, "sleep", "1000")
    elif request.param == "created":
        host.docker("create", *words, "true")
    else:
        host.docker("run", *words, "true")
    return "box"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "given"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_text("hello")
    (made / "sub" / "program").write_text("#!/bin/sh\n")
    (made / "sub" / "program").chmod(0o755)
    (made / "link").symlink_to("file")
    return made


def test_there_and_back(host: Machine, box: str, folder: Path, tmp_path: Path) -> None:
    for target in ("/tmp", "/data"):
        host.docker("cp", str(folder), f"{box}:{target}/new")
        host.docker("cp", f"{box}:{target}/new", str(tmp_path / f"back{target.replace('/', '-')}"))
        back = tmp_path / f"back{target.replace('/', '-')}"
        assert (back / "file").read_text() == "hello"
        assert (back / "sub" / "program").stat().st_mode & 0o777 == 0o755
        assert (back / "link").readlink() == Path("file")
    assert host.docker("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/new/file") == "hello"


def test_one_file(host: Machine, box: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    host.docker("cp", str(tmp_path / "a"), f"{box}:/etc/b")
    host.docker("cp", f"{box}:/etc/b", str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "one"
    assert "Could not find the file /nothing" in host.docker("cp", f"{box}:/nothing", str(tmp_path), code=1)
    status, answer = host.call("PUT", f"/containers/{box}/archive?path=/etc/b", raw=tar_of("x"))
    assert (status, answer["message"]) == (400, "extraction point is not a directory")
    assert host.call("PUT", f"/containers/{box}/archive?path=/nothing", raw=tar_of("x"))[0] == 404
    assert host.call("PUT", f"/containers/{box}/archive?path=/etc", raw=b"no tar" * 1000)[0] == 400
    assert host.call("PUT", f"/containers/{box}/archive?path=", raw=tar_of("x"))[0] == 400
    assert host.call("PUT", f"/containers/{box}/archive?path=/&noOverwriteDirNonDir=1", raw=tar_of("etc"))[0] == 400


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_large_files_between_small_ones(host: Machine, compression: str) -> None:
    """What is not moved from the pipe into a file of its own lies right around what is."""
    host.docker("run", "-d", "--name", "box", "--tmpfs", "/memory", "busybox", "sleep", "1000")
    sizes = [0, 1, (1 << 20) - 1, 1 << 20, 511, (3 << 20) + 7, (2 << 20) + 511, 513, (1 << 20) + 1]
    contents = {f"file{number}": os.urandom(size) for number, size in enumerate(sizes)}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode=f"w:{compression}") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in contents.items()]
    for folder in ("/tmp", "/memory"):
        assert host.call("PUT", f"/containers/box/archive?path={folder}", raw=output.getvalue())[0] == 200
        assert host.docker("exec", "-w", folder, "box", "sh", "-c", "sha256sum file*").splitlines() == sums
    if not compression:
        status, answer = host.call("PUT", "/containers/box/archive?path=/tmp", raw=output.getvalue()[:5 << 20])
        assert (status, answer["message"]) == (400, "cannot read the archive: unexpected end of data")


def tar_of(name: str, content: bytes = b"written") -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


def test_no_link_leads_outside(host: Machine, tmp_path: Path) -> None:
    secret = host.root / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "key").write_text("of the host")
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c",
                f"mkdir -p {host.root}; ln -s {secret} /out; ln -s ../../../..{secret} /up; sleep 1000")
    for state in ("running", "exited"):
        for path in ("/out/key", "/up/key", f"/proc/1/root{secret}/key", f"/../..{secret}/key"):
            assert host.docker_run("cp", f"box:{path}", str(tmp_path)).returncode == 1, (state, path)
        for path, name in (("/out", "x"), ("/", "out/x"), ("/", f"../../../..{secret}/x"), ("/", f"{secret}/x")):
            host.call("PUT", f"/containers/box/archive?path={path}", raw=tar_of(name))
        assert [each.name for each in secret.iterdir()] == ["key"]
        host.docker("kill", "box") if state == "running" else None


def test_a_file_replaces_a_link_instead_of_writing_through_it(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo kept > /a; ln -s /a /b; sleep 1000")
    assert host.call("PUT", "/containers/box/archive?path=/", raw=tar_of("b"))[0] == 200
    assert host.docker("exec", "box", "cat", "/a", "/b") == "kept\nwritten"


def test_read_only_roots_and_volumes(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "--read-only", "-v", "ro:/ro:ro", "-v", "rw:/rw", "busybox", "sleep",
                "1000")
    for _ in range(2):
        for path, status in (("/etc", 403), ("/ro", 403), ("/rw", 200)):
            assert host.call("PUT", f"/containers/box/archive?path={path}", raw=tar_of("x"))[0] == status, path
        host.docker("stop", "-t", "0", "box")


def test_export(host: Machine, box: str) -> None:
    exported = host.root / "exported.tar"
    host.docker("export", "--output", str(exported), box)
    with tarfile.open(exported) as tar:
        names = set(tar.getnames())
    assert {"bin", "bin/busybox", "etc/passwd"} <= names
    assert host.docker("import", str(exported), "again").startswith("sha256:")
    assert host.docker("run", "--rm", "again", "/bin/echo", "still here") == "still here"
    host.docker("rmi", "again")


def test_what_changed(host: Machine) -> None:
    host.docker("run", "--name", "first", "busybox", "sh", "-c",
                "mkdir /made; echo x > /made/in; rm /etc/group; rmdir /www")
    assert host.docker("diff", "first").splitlines() == ["C /etc", "D /etc/group", "A /made", "A /made/in", "D /www"]
    host.docker("run", "--name", "idle", "busybox", "true")
    assert host.docker("diff", "idle") == ""
