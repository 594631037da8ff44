"""Records on disk: one file each, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Folder(Generic[T]):
    """A folder of records of one type. With `durable` a write survives a power cut."""

    def __init__(self, path: Path, kind: type[T], *, durable: bool) -> None:
        self.path = path
        self._durable = durable
        self._decoder = msgspec.json.Decoder(kind)
        self._encode = msgspec.json.Encoder().encode

    def load(self) -> dict[str, T]:
        """Every record that can be read, by its file's name. One that cannot is moved aside (`.bad`)."""
        self.path.mkdir(parents=True, exist_ok=True)
        found = {}
        for file in self.path.glob("*.json"):
            try:
                found[file.stem] = self._decoder.decode(file.read_bytes())
            except msgspec.DecodeError:
                file.rename(file.with_suffix(".bad"))
        return found

    def put(self, key: str, record: T) -> None:
        final = self.path / f"{key}.json"
        fresh = self.path / f"{key}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, self._encode(record))
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(final)

    def drop(self, key: str) -> None:
        (self.path / f"{key}.json").unlink(missing_ok=True)
