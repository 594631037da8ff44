"""Writes that a crash leaves whole or absent. Blocking: called in threads."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Make `folder` and what is missing above it, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir()
        sync_folder(each.parent)


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, durably, in one step."""
    make_folders(path.parent)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename, durably. The source's content was synced before."""
    make_folders(target.parent)
    source.replace(target)
    sync_folder(target.parent)


def read_link(path: Path) -> str | None:
    """The digest that a link file holds; None where there is none, or where another program's crash left it empty."""
    try:
        return path.read_text("ascii").strip() or None
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
