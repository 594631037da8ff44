"""Records on disk: one file each, replaced as a whole, so that a crash leaves the old one or the new one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

PRIVATE = 0o600

_encode = msgspec.json.Encoder().encode


def write_record(path: Path, record: msgspec.Struct, *, durable: bool) -> None:
    """Replace the file. With `durable` it survives a power cut as well."""
    write_bytes(path, _encode(record), durable=durable)


def write_bytes(path: Path, content: bytes, *, durable: bool = False, mode: int = PRIVATE) -> None:
    """Replace the file. Where that fails the old one stays, whole."""
    fresh = f"{path}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        if mode != PRIVATE:
            os.fchmod(descriptor, mode)  # whatever the umask is
        _write_all(descriptor, content, path)
        if durable:
            os.fdatasync(descriptor)
    except OSError:
        os.unlink(fresh)  # noqa: PTH108 (as below)
        raise
    finally:
        os.close(descriptor)
    os.rename(fresh, path)  # noqa: PTH104 (as fast as it gets: this is on the way of every start)


def overwrite_record(path: Path, record: msgspec.Struct) -> None:
    """Write over the file where there is no room for another one: it takes no more of the disk than it has.

    Raises OSError, and leaves it as it is, where the record is larger than that. A power cut may spoil it, a kill not.
    """
    content = _encode(record)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if len(content) > status.st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        _write_all(descriptor, content.ljust(status.st_size), path)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes, path: Path) -> None:
    """A disk that becomes full takes the beginning, and says so only to the next write."""
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_record(path: Path, kind: type[T]) -> T | None:
    """The record; None where there is none. One that cannot be read is moved aside (`.bad`)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError:
        path.rename(path.with_suffix(".bad"))
        return None
