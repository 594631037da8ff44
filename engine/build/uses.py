"""When what builds keep was used last. Blocking, and quick: one small file.

    <root>/uses.json    replaced as a whole; where it is lost, what is kept counts as unused since it was made
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from shoal.engine.containers.files import write_record

log = logging.getLogger(__name__)


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    last: float  # seconds since the epoch
    count: int = 1
    name: str = ""  # of a folder: what Dockerfiles call it
    created: float = 0.0


class _Uses(msgspec.Struct):
    known: dict[str, Use]


_decoder = msgspec.json.Decoder(_Uses)


class Uses:
    """By the id of an image, or of a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Use] = {}
        try:
            self._known = _decoder.decode(path.read_bytes()).known
        except FileNotFoundError:
            pass
        except msgspec.MsgspecError as error:
            log.warning("event=uses-unreadable path=%s error=%s", path, error)

    def of(self, key: str, created: float = 0.0) -> Use:
        """`created`: where nobody has used it since."""
        return self._known.get(key) or Use(created, 0, created=created)

    def mark(self, keys: Iterable[str], now: float) -> None:
        for key in keys:
            before = self.of(key, now)
            self._known[key] = msgspec.structs.replace(before, last=now, count=before.count + 1)

    def name(self, key: str, name: str) -> None:
        self._known[key] = msgspec.structs.replace(self.of(key), name=name)

    def keep_only(self, keys: Collection[str]) -> None:
        self._known = {key: use for key, use in self._known.items() if key in keys}

    def save(self) -> None:
        """A full disk loses nothing but the times."""
        try:
            write_record(self._path, _Uses(dict(self._known)), durable=False)
        except OSError as error:
            log.warning("event=uses-not-written path=%s error=%s", self._path, error)
