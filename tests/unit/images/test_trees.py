"""Folders are walked and taken away, however deep they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.engine.storage.trees import remove_tree, walk

DEEP = 1500  # levels: more than Python goes down by calls


def deep(place: Path) -> None:
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_walk_goes_from_above_down_and_not_where_it_is_not_to(tmp_path: Path) -> None:
    for name in ("b/c", "a/left/out", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b" / "file").touch()
    (tmp_path / "b" / "link").symlink_to("../a")
    seen = []
    for folder, folders, rest in walk(str(tmp_path)):
        folders[:] = sorted(name for name in folders if name != "left")
        seen.append((folder[len(str(tmp_path)):], [*folders], sorted(rest)))
    assert seen == [("", ["a", "b", "e"], []), ("/a", [], []), ("/b", ["c"], ["file", "link"]), ("/b/c", [], []),
                    ("/e", [], [])]


def test_deep_ones(tmp_path: Path) -> None:
    deep(tmp_path / "top")
    assert sum(1 for _ in walk(str(tmp_path / "top"))) == DEEP + 1
    remove_tree(tmp_path / "top")
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_too_long_is_not_left_out(tmp_path: Path) -> None:
    here = tmp_path / "top"
    here.mkdir()
    descriptor = os.open(here, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=descriptor)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    with pytest.raises(OSError, match="File name too long"):
        list(walk(str(here)))
    remove_tree(here)
    assert not here.exists()


def test_what_cannot_be_taken_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "nothing")
    remove_tree(tmp_path / "file", ignore_errors=True)
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "file")
