"""What a container wrote, as the tar of a layer: deletions as OCI writes them (`.wh.…`). Blocking.

Source: OCI image specification, layer.md.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from shoal.engine.storage.driver import Change, ChangeKind
from shoal.engine.storage.unpack import OPAQUE_XATTR

_OWN_XATTRS = ("trusted.overlay.", "user.overlay.")
_XATTR = "SCHILY.xattr."


def pack(upper: Path, changes: Iterable[Change], target: IO[bytes]) -> None:
    """Write the `changes` in the upper directory of an OverlayFS.

    What goes away meanwhile is left out, and so are sockets.
    """
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for change in changes:
            name = change.path.lstrip("/")
            if change.kind is ChangeKind.DELETED:
                parent, _, base = name.rpartition("/")
                tar.addfile(_empty(f"{parent}/.wh.{base}" if parent else f".wh.{base}"))
                continue
            with suppress(FileNotFoundError):
                _add(tar, upper / name, name)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tar.gettarinfo(path, name)
    if member is None:
        return
    member.uname = member.gname = ""
    xattrs = _xattrs(path) if not member.issym() else {}
    opaque = xattrs.pop(OPAQUE_XATTR, "") == "y"
    member.pax_headers = {_XATTR + key: value for key, value in xattrs.items() if not key.startswith(_OWN_XATTRS)}
    if member.isreg():
        with path.open("rb") as content:
            member.size = os.fstat(content.fileno()).st_size
            tar.addfile(member, content)
        return
    tar.addfile(member)
    if opaque:
        tar.addfile(_empty(f"{name}/.wh..wh..opq"))


def _xattrs(path: Path) -> dict[str, str]:
    return {key: os.getxattr(path, key, follow_symlinks=False).decode("utf-8", "surrogateescape")
            for key in os.listxattr(path, follow_symlinks=False)}


def _empty(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IRUSR | stat.S_IWUSR
    return member
