"""A layer cannot reach outside of its directory, whatever it says."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.storage.unpack import MAX_HEADER_BYTES, unpack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, **more: object
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    for key, value in more.items():
        setattr(info, key, value)
    return info


def layer(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each in members:
            info, content = each if isinstance(each, tuple) else (each, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    target.seek(0)
    return target


def directory(name: str, **more: object) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, mode=0o755, **more)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "outside" / "layer"
    place.mkdir(parents=True)
    return place


def outside(root: Path) -> set[str]:
    return {path.name for path in root.parent.iterdir()}


def test_content_owner_mode_and_time(root: Path) -> None:
    size = unpack(
        layer(
            directory("etc", mtime=1000),
            (member("etc/file", mode=0o4750, uid=7, gid=8, mtime=2000), b"hello"),
            symlink("etc/link", "/etc/file"),
            member("etc/hard", tarfile.LNKTYPE, "etc/file"),
            member("fifo", tarfile.FIFOTYPE),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            (member("made/on/the/way"), b"x"),
        ),
        root,
    )
    found = (root / "etc/file").stat()
    assert size == 6
    assert (found.st_uid, found.st_gid, found.st_mtime) == (7, 8, 2000)
    assert stat.S_IMODE(found.st_mode) == 0o4750
    assert (root / "etc").stat().st_mtime == 1000
    assert (root / "etc/link").readlink() == Path("/etc/file")
    assert (root / "etc/hard").stat().st_ino == found.st_ino
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert (root / "made/on/the/way").read_text() == "x"


def test_whiteouts_become_overlayfs_ones(root: Path) -> None:
    unpack(layer(directory("a"), member("a/.wh.gone"), member("b/.wh..wh..opq"), member("b/.wh..wh.plnk")), root)
    gone = (root / "a/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(root / "b", "trusted.overlay.opaque") == b"y"
    assert list((root / "b").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../escaped", "a/../../escaped", "..", "a/..", "/../escaped", ".wh...", "a/.wh..."],
)  # fmt: skip
def test_names_that_climb_are_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        unpack(layer((member(name), b"x")), root)
    assert outside(root) == {"layer"}


@pytest.mark.parametrize("target", ["..", "../..", "/", "/here", "../../here"])
def test_a_link_in_the_path_is_resolved_inside(root: Path, target: str) -> None:
    """A parent that is a link leads where it leads in the container, which is inside."""
    unpack(layer(directory("here"), symlink("way", target), (member("way/file"), b"x")), root)
    assert outside(root) == {"layer"}
    assert not Path("/file").exists()
    assert {path.name for path in root.rglob("file")} == {"file"}


def test_a_link_to_nowhere_in_the_path_is_refused(root: Path) -> None:
    with pytest.raises(InvalidArgument):
        unpack(layer(symlink("way", "/tmp"), (member("way/file"), b"x")), root)
    assert not Path("/tmp/file").exists()


def test_a_file_does_not_write_through_a_link(root: Path) -> None:
    victim = root.parent / "victim"
    victim.write_text("intact")
    unpack(layer(symlink("file", str(victim)), (member("file"), b"overwritten")), root)
    assert victim.read_text() == "intact"
    assert (root / "file").read_text() == "overwritten"


def test_a_hard_link_stays_inside(root: Path) -> None:
    victim = root.parent / "victim"
    victim.write_text("intact")
    for target in ("../victim", str(victim), "way/victim"):
        with pytest.raises(InvalidArgument):
            unpack(layer(symlink("way", ".."), member("hard", tarfile.LNKTYPE, target)), root)
        (root / "way").unlink(missing_ok=True)
    assert not (root / "hard").exists()


def test_a_directory_turned_into_a_link_is_not_followed_out(root: Path) -> None:
    unpack(layer(directory("a"), (member("a/x"), b"1"), symlink("a", "/"), (member("a/y"), b"2")), root)
    assert (root / "y").read_text() == "2"
    assert not Path("/y").exists()


def test_attributes_that_would_redirect_the_mount_are_dropped(root: Path) -> None:
    headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.kept": "yes",
    }
    unpack(layer((member("file", pax_headers=headers), b"x")), root)
    assert os.listxattr(root / "file") == ["user.kept"]


def test_a_device_0_0_is_no_way_to_hide_files(root: Path) -> None:
    unpack(layer(member("hidden", tarfile.CHRTYPE, devmajor=0, devminor=0)), root)
    assert list(root.iterdir()) == []


def test_truncated(root: Path) -> None:
    whole = layer((member("file"), b"x" * 5000)).getvalue()
    with pytest.raises(InvalidArgument):
        unpack(io.BytesIO(whole[:2000]), root)


def test_garbage(root: Path) -> None:
    with pytest.raises(InvalidArgument):
        unpack(io.BytesIO(b"not a tar archive" * 100), root)


def test_a_huge_header_is_not_read_into_memory(root: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, MAX_HEADER_BYTES + 1
    with pytest.raises(InvalidArgument):
        unpack(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), root)


def test_a_name_with_many_parts_is_refused(root: Path) -> None:
    with pytest.raises(InvalidArgument):
        unpack(layer(member("a/" * 3000 + "b")), root)


def test_the_later_member_wins(root: Path) -> None:
    unpack(
        layer(directory("a"), (member("a/b"), b"1"), (member("a"), b"file now"), directory("c"), directory("c")), root
    )
    assert (root / "a").read_text() == "file now"
    assert (root / "c").is_dir()
