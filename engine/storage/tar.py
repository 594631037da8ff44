"""Tar archives that strangers wrote: Python's reader, with bounds, and every fault of theirs as one error.

What a header may hold is bounded, for tarfile reads headers whole; sizes and the maps of sparse files are
checked, for tarfile trusts them and would read the same piece for ever; and a damaged header is an error also
in the middle of an archive, where tarfile takes it for the end.
"""

from __future__ import annotations

import errno
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, cast

from shoal.api.errors import InvalidArgument
from shoal.engine.storage.driver import Readable
from shoal.engine.storage.forward import ForwardReader

MAX_HEADER_BYTES = 1 << 20
"""Of all the headers and the map of sparse parts that belong to one member, and of the global headers in force."""

MAX_GLOBAL_HEADERS = 1000
MAX_DIGITS = 1000
"""In a row, in a header: tarfile's patterns take the square of them."""

MAX_MEMBER_BYTES = 1 << 50

_EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
                       tarfile.GNUTYPE_LONGLINK})
_DAMAGED = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]

_End = tarfile.EOFHeaderError  # type: ignore[attr-defined]
"""Also of a stream of no bytes, an archive of nothing: some layers are (moby#18170). tarfile refuses that."""

_THEIRS = frozenset({
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.ELOOP,
    errno.EINVAL, errno.EPERM, errno.EMLINK, errno.E2BIG, errno.ERANGE, errno.EFBIG, errno.EXDEV, errno.ENOTSUP})
"""What the system says of archives that ask for what cannot be. Anything else is this host's fault."""


class BoundedTarInfo(tarfile.TarInfo):
    """A member whose headers are of bounded length and make sense."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Raises InvalidArgument, and tarfile's own error at the end of the archive."""
        source = cast("Any", archive.fileobj)
        if isinstance(source, _Header):  # a header of the header
            return super().fromtarfile(archive)
        archive.fileobj = cast("Any", _Header(source))
        try:
            member = super().fromtarfile(archive)
        except _DAMAGED as error:
            raise InvalidArgument(f"invalid tar archive: {error}") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise _End("end of the stream") from error
        except (IndexError, RecursionError) as error:
            raise InvalidArgument("invalid tar archive: damaged headers") from error
        finally:
            archive.fileobj = source
        member._check()
        return member

    def _check(self) -> None:
        if not 0 <= self.size <= MAX_MEMBER_BYTES:
            raise InvalidArgument(f"archive member {self.name!r} has {self.size} bytes")
        end = 0
        for offset, size in sparse_parts(self):
            if offset < end or size < 0:
                raise InvalidArgument(f"archive member {self.name!r} has sparse parts that overlap")
            end = offset + size
        if end > self.size:
            raise InvalidArgument(f"archive member {self.name!r} has sparse parts beyond its end")

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not 0 <= self.size <= (MAX_HEADER_BYTES if self.type in _EXTENDED else MAX_MEMBER_BYTES):
            raise InvalidArgument(f"archive has a member or an extended header of {self.size} bytes")
        made: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        if self.type == tarfile.XGLTYPE:
            known = archive.pax_headers
            if len(known) > MAX_GLOBAL_HEADERS or sum(map(len, known.values())) > MAX_HEADER_BYTES:
                raise InvalidArgument("archive has too many global headers")
        return made


def sparse_parts(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """(offset, bytes) of what is no hole; none where the file is not sparse. Maps have empty parts at their end."""
    return [part for part in cast("list[tuple[int, int]]", member.sparse or []) if part[1]]


class _Header:
    """The archive, while the headers of one member are read: not for ever."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._left = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise InvalidArgument(f"archive has extended headers of more than {MAX_HEADER_BYTES} bytes")
        data: bytes = self._source.read(size)
        if size > MAX_DIGITS and any(len(found[0]) > MAX_DIGITS for found in re.finditer(rb"[0-9]+", data)):
            raise InvalidArgument("archive has a header with a number that is none")
        return data

    def tell(self) -> int:
        return self._source.tell()  # type: ignore[no-any-return]

    def seek(self, position: int) -> None:
        self._source.seek(position)


@contextmanager
def faults_named() -> Iterator[None]:
    """What an archive does wrong is InvalidArgument; what this host cannot do stays OSError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _THEIRS:
            raise
        raise InvalidArgument(f"invalid archive: {error.strerror}: {error.filename!r}") from error
    except RecursionError as error:
        raise InvalidArgument("invalid tar archive: it is nested too deep") from error
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"invalid tar archive: {error}") from error


def open_stream(stream: Readable) -> tarfile.TarFile:
    """To be read once, from front to back."""
    # its stubs ask for more than what it uses
    return tarfile.open(fileobj=cast("IO[bytes]", ForwardReader(stream)), mode="r:", tarinfo=BoundedTarInfo)


def open_file(path: Path) -> tarfile.TarFile:
    """To be read at random."""
    return tarfile.open(path, mode="r:", tarinfo=BoundedTarInfo)


def forget_members(archive: tarfile.TarFile) -> None:
    """Else every header that was read stays in memory."""
    archive.members = []  # type: ignore[attr-defined]
