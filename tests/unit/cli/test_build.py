"""`shoal build`: what is sent, and how it is asked for."""

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.cli.buildcontext import MAX_DOCKERFILE_BYTES, OUTSIDE, is_remote, pack, pass_on
from shoal.cli.commands.build import MAX_SECRET_BYTES, arguments, encoded


def packed(folder, dockerfile=None):
    target = io.BytesIO()
    name = pack(folder, dockerfile, target)
    target.seek(0)
    with tarfile.open(fileobj=target) as archive:
        return name, {member.name: member for member in archive}


@pytest.mark.parametrize(("path", "remote"), [
    ("https://example.org/app.git#v1:sub", True), ("http://example.org/context.tar", True), ("git@host:app.git", True),
    ("git://host/app#main", True), ("github.com/someone/app", True), (".", False), ("app.git", False), ("/a", False),
    ("ftp://example.org/app", False)])
def test_what_the_daemon_fetches(path, remote):
    assert is_remote(path) is remote


def test_a_folder_here_is_sent_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "github.com/someone").mkdir(parents=True)
    assert not is_remote("github.com/someone")


@pytest.fixture
def folder(tmp_path):
    for path in ("Dockerfile", "src/main.c", "src/main.o", "logs/today", "logs/kept/one", "empty/.keep"):
        place = tmp_path / "context" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)
    (tmp_path / "context/link").symlink_to("src")
    return tmp_path / "context"


def test_all_is_sent_as_root_s(folder):
    name, members = packed(folder)
    assert name == "Dockerfile"
    assert set(members) == {"Dockerfile", "src", "src/main.c", "src/main.o", "logs", "logs/today", "logs/kept",
                            "logs/kept/one", "empty", "empty/.keep", "link"}
    assert members["link"].linkname == "src"
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_what_is_ignored_stays_but_for_what_the_build_needs(folder):
    (folder / ".dockerignore").write_text("# comment\n*\n!src\n**/*.o\n!logs/kept\n")
    _, members = packed(folder)
    assert set(members) == {"Dockerfile", ".dockerignore", "src", "src/main.c", "logs/kept", "logs/kept/one"}


def test_a_dockerfile_may_be_elsewhere(folder, tmp_path):
    (tmp_path / "other").write_text("FROM scratch")
    assert packed(folder, tmp_path / "other")[0] == OUTSIDE
    (folder / ".dockerignore").write_text("src\n")
    name, members = packed(folder, folder / "src/main.c")
    assert name == "src/main.c" and "src/main.c" in members and "src/main.o" not in members


@pytest.mark.parametrize("missing", ["nowhere", "context/src"])
def test_what_is_missing_is_named(folder, tmp_path, missing):
    with pytest.raises(InvalidArgument, match=r"is not a folder|there is no Dockerfile"):
        packed(tmp_path / missing)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_that_is_read_is_passed_on_as_it_is(folder, mode):
    source, target = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=source, mode=mode) as archive:
        archive.add(folder, ".")
    assert pass_on(io.BytesIO(source.getvalue()), None, target) == "Dockerfile"
    assert target.getvalue() == source.getvalue()
    assert pass_on(io.BytesIO(source.getvalue()), Path("sub/file"), io.BytesIO()) == "sub/file"


@pytest.mark.parametrize("text", [b"FROM scratch\n", b"FROM a\n" + b"# long\n" * 1000, b""])
def test_a_dockerfile_that_is_read_is_the_whole_context(text):
    target = io.BytesIO()
    assert pass_on(io.BytesIO(text), None, target) == "Dockerfile"
    target.seek(0)
    with tarfile.open(fileobj=target) as archive:
        assert archive.getnames() == ["Dockerfile"]
        assert archive.extractfile("Dockerfile").read() == text
    with pytest.raises(InvalidArgument, match="leave one out"):
        pass_on(io.BytesIO(text), Path("other"), io.BytesIO())


def test_what_is_read_has_an_end():
    with pytest.raises(InvalidArgument, match="more than"):
        pass_on(io.BytesIO(b"#" * (MAX_DOCKERFILE_BYTES + 1000)), None, io.BytesIO())


def test_arguments_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("FROM_HERE", "x")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert arguments(("A=1=2", "B=", "FROM_HERE", "NOT_HERE")) == {"A": "1=2", "B": "", "FROM_HERE": "x"}


def test_secrets_fit_in_a_header(tmp_path):
    (tmp_path / "key").write_bytes(b"\0secret")
    sent = json.loads(base64.b64decode(encoded((f"id=key,src={tmp_path}/key",))))
    assert base64.b64decode(sent["key"]) == b"\0secret"
    (tmp_path / "big").write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    for wrong in (f"id=key,src={tmp_path}/none", "src=x", "id=key,colour=red", "key", f"id=big,src={tmp_path}/big"):
        with pytest.raises(InvalidArgument, match="--secret"):
            encoded((wrong,))
