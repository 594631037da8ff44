"""Archives that nobody would write: members of every kind under names that meet, headers that lie, damage."""

from __future__ import annotations

import tarfile
from typing import Any

from hypothesis import strategies as st

_NAMES = ["a", "b", "a/b", "a/b/c", "a/a/a", "b/a", "./a", "a/", "/a", "//b//a", "a/../b", "..", "../a", ".", "",
          "a/.", "a/..", "n" * 255, "n" * 256, "d/" * 300 + "f", "caf\udce9", "\n", "a\0b", ".wh.a", "a/.wh.b", ".wh.",
          ".wh...", ".wh..", ".wh..wh..opq", "a/.wh..wh..opq", ".wh..wh.plnk", "a/.wh..wh.aufs", "victim", "/../victim",
          "proc/self/root/a"]
_TARGETS = [*_NAMES, "/", "../..", "../victim", "../../../../tmp", "/proc/self/root", "/proc/self/fd/3", "/dev/null"]
_KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
          tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE,
          tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"V", b"\xff"]
_COMMON = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
_KEYS = ["path", "linkpath", "size", "mtime", "uid", "gid", "hdrcharset", "GNU.sparse.map", "GNU.sparse.major",
         "GNU.sparse.minor", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.name", "GNU.sparse.numblocks",
         "GNU.sparse.offset", "GNU.sparse.numbytes", "SCHILY.xattr.user.a", "SCHILY.xattr.security.capability",
         "SCHILY.xattr.trusted.overlay.opaque", "SCHILY.xattr.trusted.overlay.redirect", "SCHILY.xattr.system.x"]
_VALUES = ["", "0", "1", "-1", "512", "1024", "9" * 20, "1e9", "nan", "inf", "-inf", "BINARY", "0,1", "1,0,2",
           "0,512,512,512", "5,-1", "1024,1,0,1", "y", "/etc", "a" * 3000, *_NAMES[:12]]

names = st.sampled_from(_NAMES)
numbers = st.sampled_from([0, 1, 7, 0o7777777, 65534, 2**31])


def _block(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


@st.composite
def members(draw: Any) -> bytes:
    """A member with its headers and its content."""
    info = tarfile.TarInfo(draw(names))
    info.type = draw(st.sampled_from(_COMMON) | st.sampled_from(_KINDS))
    info.linkname = draw(st.sampled_from(_TARGETS)) if draw(st.booleans()) else ""
    info.mode, info.uid, info.gid = draw(st.integers(0, 0o7777)), draw(numbers), draw(numbers)
    info.mtime = draw(st.sampled_from([0, 1, 2**32, 2**33]))
    info.devmajor, info.devminor = draw(st.sampled_from([(0, 0), (0, 1), (240, 77), (1, 3), (0o7777777, 0o7777777)]))
    content = draw(st.binary(max_size=1500))
    info.size = len(content) if draw(st.integers(0, 5)) else draw(st.sampled_from([0, 1, 512, 10**6, 2**40, -512, -1]))
    made = b""
    if draw(st.integers(0, 3)) == 0:
        records = draw(st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES)), min_size=1, max_size=4))
        made += pax(draw(st.sampled_from([tarfile.XHDTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE])), records)
    return made + header(info) + (_block(content) if content else b"")


def header(info: tarfile.TarInfo) -> bytes:
    """As the library writes it, where it does; else what fits."""
    try:
        return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
    except (ValueError, OverflowError):
        plain = tarfile.TarInfo(info.name.replace("\0", ""))
        plain.type = info.type
        return plain.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")


def pax(kind: bytes, records: list[tuple[str, str]]) -> bytes:
    content = b""
    for key, value in records:
        raw = f" {key}={value}\n".encode(errors="surrogateescape")
        length = len(raw) + len(str(len(raw)))
        content += str(len(raw) + len(str(length))).encode() + raw
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + _block(content)


@st.composite
def archives(draw: Any) -> bytes:
    """Some members, an end or none, and at times damage: bytes changed (and checksums mended), or a cut."""
    end = bytes(draw(st.sampled_from([0, 512, 1024, 2000])))
    made = bytearray(b"".join(draw(st.lists(members(), max_size=8))) + end)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        if made:
            place = draw(st.integers(0, len(made) - 1))
            made[place] = draw(st.integers(0, 255))
            _mend_checksum(made, place)
    if draw(st.integers(0, 5)) == 0:
        del made[draw(st.integers(0, len(made))):]
    return bytes(made)


def _mend_checksum(made: bytearray, place: int) -> None:
    """Of the header that the place is in, if it is in one: else a damaged header is all that is ever found."""
    start = place - place % 512
    block = made[start : start + 512]
    if len(block) == 512 and bytes(block[257:262]) == b"ustar":
        block[148:156] = b" " * 8
        made[start + 148 : start + 156] = b"%06o\0 " % sum(block)
