"""Records on disk: one file each, replaced as a whole, so that a crash leaves the old one or the new one."""

from __future__ import annotations

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
    fresh = f"{path}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        if mode != PRIVATE:
            os.fchmod(descriptor, mode)  # whatever the umask is
        os.write(descriptor, content)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(fresh, path)  # noqa: PTH104 (as fast as it gets: this is on the way of every start)


def read_record(path: Path, kind: type[T]) -> T | None:
    """The record; None where there is none. One that cannot be read is moved aside (`.bad`)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError:
        path.rename(path.with_suffix(".bad"))
        return None
