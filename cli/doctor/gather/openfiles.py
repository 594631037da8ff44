"""What the processes of this host have open: who holds a socket, and how much of inotify is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from shoal.cli.doctor.facts import Inotify
from shoal.cli.doctor.gather.reading import text

_INOTIFY = "anon_inode:inotify"


class OpenFiles(msgspec.Struct, frozen=True):
    """`sockets`: inode → the command line that has it open. Of other users' processes only root sees any."""

    sockets: Mapping[str, str]
    inotify: Inotify

    @classmethod
    def of_all_processes(cls) -> OpenFiles:
        sockets: dict[str, str] = {}
        instances = watches = 0
        for folder in Path("/proc").glob("[0-9]*"):
            for file, target in _open(folder):
                if target.startswith("socket:["):
                    sockets[target[8:-1]] = _command(folder)
                elif target == _INOTIFY and _is_of_root(folder):
                    instances += 1
                    watches += text(folder / "fdinfo" / file).count("inotify wd:")
        return cls(sockets, Inotify(instances, watches))


def _open(folder: Path) -> Iterator[tuple[str, str]]:
    """(number, target) of each file that a process has open; those that it closes meanwhile are left out."""
    with suppress(OSError):  # another user's process, or one that ended
        for link in (folder / "fd").iterdir():
            with suppress(OSError):
                yield link.name, str(link.readlink())


def _command(folder: Path) -> str:
    words = text(folder / "cmdline").split("\0")
    return f"{' '.join(words[:4]).strip()} ({folder.name})"


def _is_of_root(folder: Path) -> bool:
    """The limits of inotify are each user's own; shoald and conmon are root's."""
    with suppress(OSError):
        return folder.stat().st_uid == 0
    return False
