"""Sizes of folders: however deep they are, and whatever is done to them meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.engine.storage.measure import Measuring, tree_bytes
from shoal.engine.storage.trees import remove_tree


def deep(place: Path, names: list[str], content: bytes) -> None:
    """Folders in each other, with a file in each; made as who knows no whole path of them does."""
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for name in names:
        written = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(written, content)
        os.close(written)
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.parametrize("names", [["d"] * 1500, ["long" * 60] * 200], ids=["many", "beyond what a path can say"])
def test_folders_in_folders(tmp_path: Path, names: list[str]) -> None:
    deep(tmp_path / "top", names, b"123")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert tree_bytes(tmp_path / "top") == 3 * len(names)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    remove_tree(tmp_path / "top")


def test_what_counts(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"1" * 10)
    (tmp_path / "a/again").hardlink_to(tmp_path / "a/b/file")  # the same bytes
    (tmp_path / "c").mkdir()
    (tmp_path / "c/file").write_bytes(b"2" * 100)
    (tmp_path / "link").symlink_to("/etc")
    assert tree_bytes(tmp_path) == 110 + len("/etc")
    assert tree_bytes(tmp_path / "nothing") == 0


@pytest.mark.parametrize("disturb", [
    pytest.param(remove_tree, id="removed"),
    pytest.param(lambda one: one.rename(one.parent.parent.parent / "elsewhere"), id="moved out"),
])
def test_what_is_done_meanwhile_leads_nowhere_else(tmp_path: Path, disturb: Callable[[Path], object]) -> None:
    """From the lowest level that stays open it goes on; what lies outside is never counted."""
    (tmp_path / "outside").write_bytes(b"x" * 1000)
    top = tmp_path / "top"
    deep(top, ["a", "b", "c", "d"], b"1")
    for number in range(3):
        (top / f"other{number}").mkdir()
        (top / f"other{number}/file").write_bytes(b"22")
    measuring = Disturbed(top, lambda: disturb(top / "a/b/c"))
    assert measuring.run() == 4 + 3 * 2
    assert measuring.disturbed


class Disturbed(Measuring):
    """Something happens when the folder of the folder d has been looked into."""

    def __init__(self, top: Path, disturb: Callable[[], object]) -> None:
        super().__init__(os.open(top, os.O_RDONLY | os.O_DIRECTORY), kept_open=1)
        self.disturbed = False
        self._disturb = disturb

    def _look(self) -> list[str]:
        found = super()._look()
        if found == ["d"]:
            self._disturb()
            self.disturbed = True
        return found
