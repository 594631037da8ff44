"""A layer cannot reach outside of its directory, nor hang or fill the reader, whatever it says."""

import hashlib
import io
import os
import resource
import stat
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.storage.tar import MAX_GLOBAL_HEADERS, MAX_HEADER_BYTES
from shoal.engine.storage.trees import remove_tree
from shoal.engine.storage.unpack import Digests, _note, apply, unpack

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


# --- headers that lie ---


def pax(kind: bytes = tarfile.XHDTYPE, *records: bytes) -> bytes:
    """An extended header, record by record."""
    content = b"".join(records)
    info = member("pax", kind)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key: str, value: str | bytes) -> bytes:
    raw = b" " + key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode()) + b"\n"
    length = len(raw) + len(str(len(raw)))
    length = len(raw) + len(str(length))
    return str(length).encode() + raw


def described(key: str, value: str | bytes, content: bytes = b"x") -> bytes:
    """A file with one extended header."""
    info = member("file")
    info.size = len(content)
    body = content + bytes(-len(content) % 512)
    return pax(tarfile.XHDTYPE, record(key, value)) + info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(1024)


def with_size(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a file so large, or of minus that."""
    info = member("file", kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)


def old_sparse(parts: list[tuple[int, int]], size: int, *, extended: bool = False) -> bytes:
    header = bytearray(member("file", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    for number, (offset, length) in enumerate(parts):
        header[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, length)
    header[482] = extended
    header[483:495] = b"%011o\0" % size
    header[124:136] = b"%011o\0" % sum(length for _, length in parts)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


HOSTILE = {
    "a negative size": with_size(-512),
    "a size beyond all disks": with_size(1 << 60),
    "a negative size of a folder": with_size(-1024, tarfile.DIRTYPE),
    "a negative size in a pax header": described("size", "-512"),
    "a huge size in a pax header": described("size", "9" * 30),
    "a size that the archive does not have": described("size", "100000"),
    "a pax path that climbs": described("path", "../escaped"),
    "a pax path with a NUL": described("path", b"a\0b"),
    "a pax path with a long part": described("path", "n" * 300),
    "a pax path that is long": described("path", "a/" * 3000 + "b"),
    "an endless time": described("mtime", "inf"),
    "a time that is none": described("mtime", "nan"),
    "an owner beyond all": described("uid", "9" * 12),
    "digits without an end": pax(tarfile.XHDTYPE, b"1" * 100_000) + bytes(1024),
    "headers in headers": pax(tarfile.XHDTYPE, record("a", "b")) * 3000,
    "a header that ends": pax(tarfile.XHDTYPE, record("a", "b" * 5000))[:1024],
    "many global headers": b"".join(
        pax(tarfile.XGLTYPE, *(record(f"k{one}.{number}", "v") for one in range(100))) for number in range(
            MAX_GLOBAL_HEADERS // 100 + 1)),
    "an invalid capability": described("SCHILY.xattr.security.capability", "no capability"),
    "an attribute too large": described("SCHILY.xattr.user.large", "v" * 100_000),
    "a sparse map without an end": old_sparse([(0, 1)], 1, extended=True) + (bytes(504) + b"\1" + bytes(7)) * 3000,
    "a sparse map that ends": old_sparse([(0, 1)], 1, extended=True),
    "sparse parts that overlap": old_sparse([(1024, 1024), (512, 1024)], 4096) + bytes(4096),
    "sparse parts beyond the end": old_sparse([(1024, 1024)], 512) + bytes(4096),
    "a sparse part that is not there": old_sparse([(1024, 1 << 30)], 2 << 30) + bytes(4096),
    "a damaged header in the middle": layer((member("a"), b"1")).getvalue()[:1024] + b"garbage" * 100 + bytes(1024),
    "a header cut off in the middle": layer((member("a"), b"1")).getvalue()[:1024] + b"x" * 100,
    "members below a link that leads round": layer(symlink("a", "b"), symlink("b", "a"), member("a/c")).getvalue(),
    "a link with an empty target": layer(symlink("a", "")).getvalue(),
    "a link with a target that is long": layer(symlink("a", "t" * 5000)).getvalue(),
    "a hard link to a folder": layer(directory("a"), member("b", tarfile.LNKTYPE, "a")).getvalue(),
    "a hard link to nothing": layer(member("b", tarfile.LNKTYPE, "a")).getvalue(),
    "a hard link to the root": layer(member("b", tarfile.LNKTYPE, "/")).getvalue(),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("reader", [unpack, apply])
def test_what_lies_is_refused(root: Path, content: bytes, reader: Callable[[io.BytesIO, Path], int]) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        reader(io.BytesIO(content), root)
    str(refusal.value).encode()  # it can be told
    assert outside(root) == {"layer"}


def test_a_sparse_file_takes_no_room(root: Path) -> None:
    content = old_sparse([(1 << 30, 1024)], 4 << 30) + b"d" * 1024 + bytes(1024)
    assert unpack(io.BytesIO(content), root) == 4 << 30
    found = (root / "file").stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (4 << 30, True)
    with (root / "file").open("rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(3) == b"\0dd"
        file.seek((1 << 30) + 1023)
        assert file.read(2) == b"d\0"


# --- files of all kinds ---


def test_names_that_are_no_utf8(root: Path) -> None:
    raw = b"caf\xe9/" + b"n" * 200 + b"\xff"
    unpack(layer((member(os.fsdecode(raw)), b"x")), root)
    assert (Path(os.fsdecode(os.fsencode(root) + b"/" + raw))).read_text() == "x"


def test_an_attribute_is_set_without_opening_what_has_it(root: Path) -> None:
    """A device may do something when it is opened: here one that is not there cannot be."""
    headers = {"SCHILY.xattr.user.kept": "yes"}
    unpack(layer(member("device", tarfile.CHRTYPE, devmajor=240, devminor=77, pax_headers=headers),
                 member("fifo", tarfile.FIFOTYPE, pax_headers=headers),
                 member("folder", tarfile.DIRTYPE, mode=0o755, pax_headers=headers)), root)
    assert (root / "device").stat().st_rdev == os.makedev(240, 77)
    assert os.getxattr(root / "folder", "user.kept") == b"yes"


def test_capabilities_stay(root: Path) -> None:
    value = b"\x01\0\0\x02\0\x04\0\0" + bytes(12)  # cap_net_bind_service, effective
    unpack(io.BytesIO(described("SCHILY.xattr.security.capability", value)), root)
    assert os.getxattr(root / "file", "security.capability") == value


def test_a_whiteout_of_what_the_layer_brings(root: Path) -> None:
    """The last word counts, as everywhere."""
    unpack(layer((member("a/file"), b"1"), member("a/.wh.file"), member(".wh.b"), (member("b"), b"2")), root)
    assert stat.S_ISCHR((root / "a/file").lstat().st_mode)
    assert (root / "b").read_text() == "2"


def test_a_whiteout_of_a_parent(root: Path) -> None:
    unpack(layer(directory("a"), (member("a/b/c"), b"1"), member(".wh.a"), (member("d"), b"2")), root)
    assert stat.S_ISCHR((root / "a").lstat().st_mode)
    with pytest.raises(InvalidArgument):
        unpack(layer(member(".wh.e"), (member("e/f"), b"1")), root)


@pytest.mark.parametrize("unpack", [unpack, apply])
def test_a_layer_of_no_bytes(root: Path, unpack: Callable[[io.BytesIO, Path], int]) -> None:
    assert unpack(io.BytesIO(), root) == 0
    assert not list(root.iterdir())
    with pytest.raises(InvalidArgument):
        unpack(io.BytesIO(bytes(1)), root)


def test_what_follows_the_end_is_not_read(root: Path) -> None:
    unpack(io.BytesIO(layer((member("a"), b"1")).getvalue() + b"garbage" * 5000), root)
    assert (root / "a").read_text() == "1"


def test_folders_in_folders_without_an_end(root: Path) -> None:
    """Through links members go on where others stopped, deeper than a path can say; and all can be removed again."""
    deep = "/".join("d" * 1500)
    links = [symlink(f"far{number}", f"/{f'far{number - 1}/' if number else ''}{deep}") for number in range(3)]
    unpack(layer((member(f"{deep}/file"), b"x"),
                 *(one for link in links for one in (link, (member(f"{link.name}/{deep}/file"), b"x")))), root)
    assert len(os.listdir(root)) == 4  # noqa: PTH208
    remove_tree(root)
    assert not root.exists()


def test_of_many_files_none_is_remembered(root: Path) -> None:
    tracemalloc.start()
    try:
        unpack(Endless(5000), root)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 << 20


def test_a_layer_of_100000_files(root: Path) -> None:
    """And of their removal."""
    archive = Endless(100_000)
    unpack(archive, root)
    assert sum(1 for _ in os.scandir(root)) == archive.count
    remove_tree(root)
    assert not root.exists()


class Endless:
    """An archive of so many files, made while it is read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._members = (member(f"file{number}").tobuf(tarfile.USTAR_FORMAT) for number in range(count))
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (more := next(self._members, b"")):
            self._rest += more
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def test_digests_of_what_is_there_in_the_end(root: Path) -> None:
    digests: Digests = {}
    names = ["first", "second", "name", "name", "turned", "empty"]
    stream = layer(*((member(name), f"{name} {number}".encode() * 100_000 * (name != "empty"))
                     for number, name in enumerate(names)),
                   member("hard", tarfile.LNKTYPE, "second"), directory("turned"), symlink("soft", "first"))
    unpack(stream, root, digests)
    for name in ("first", "second", "name", "hard", "empty"):
        assert digests[(root / name).stat().st_ino] == hashlib.sha256((root / name).read_bytes()).digest()


def test_no_digest_of_a_sparse_file_which_has_more_than_what_came(root: Path) -> None:
    digests: Digests = {}
    unpack(io.BytesIO(old_sparse([(1 << 20, 512)], 2 << 20) + b"d" * 512 + bytes(1024)), root, digests)
    assert (root / "file").stat().st_size == 2 << 20
    assert not digests


def test_no_digest_of_what_a_sparse_file_has_replaced(root: Path) -> None:
    """Whose inode it may have got."""
    digests: Digests = {}
    plain = layer((member("file"), b"plain")).getvalue()[:1024]
    unpack(io.BytesIO(plain + old_sparse([(1 << 20, 512)], 2 << 20) + b"d" * 512 + bytes(1024)), root, digests)
    assert (root / "file").stat().st_ino not in digests
    _note(digests, 7, b"one")
    _note(digests, 7, b"")
    assert 7 not in digests


def test_a_file_that_does_not_fit_is_no_shorter_one(root: Path) -> None:
    """The system takes a part of the last piece, and says so by a number alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InvalidArgument, match="File too large"):
            unpack(layer((member("file"), bytes(100_001))), root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
