"""Whatever archive comes: it is unpacked below its folder or refused, soon, and nothing else is touched.

FUZZ_RUNS: how many archives for each test (60 in `make test`; `make fuzz` runs many more).
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from shoal.api.errors import InvalidArgument
from shoal.engine.images.archive import ImageArchive
from shoal.engine.images.compression import decompressed
from shoal.engine.storage.driver import Readable
from shoal.engine.storage.tar import faults_named
from shoal.engine.storage.trees import remove_tree
from shoal.engine.storage.unpack import apply, unpack
from tests.property.storage.archives import archives

RUNS = int(os.environ.get("FUZZ_RUNS", "60"))
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root"),
              pytest.mark.timeout(max(300, RUNS))]
MOST_BYTES = 64 << 20
BOUNDS = settings(max_examples=RUNS, derandomize=RUNS <= 60, database=None, deadline=None,
                  phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))


class Counted:
    """A stream that notices a reader who goes on after the end."""

    def __init__(self, content: bytes) -> None:
        self._source = io.BytesIO(content)
        self._ends = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._ends += not data
        assert self._ends < 1000, "it reads for ever"
        return data


@pytest.mark.parametrize("reader", [unpack, apply])
def test_fuzz_a_layer_stays_in_its_folder(reader: Callable[[Readable, Path], int]) -> None:
    @BOUNDS
    @given(content=archives())
    def once(content: bytes) -> None:
        place = Path(tempfile.mkdtemp(prefix="shoal-fuzz-"))
        try:
            root, victim = place / "outside" / "layer", place / "outside" / "victim"
            root.mkdir(parents=True)
            victim.write_text("intact")
            before = _shown(victim)
            try:
                size = reader(Counted(content), root)
            except InvalidArgument as error:
                error.message.encode()
            else:
                assert size >= 0
            assert _shown(victim) == before
            assert sorted(os.listdir(place / "outside")) == ["layer", "victim"]  # noqa: PTH208
            _check(root)
            remove_tree(root)
            assert not root.exists()
        finally:
            shutil.rmtree(place)

    once()


def _shown(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    return path.read_text(), found.st_mode, found.st_uid, found.st_gid, found.st_mtime, found.st_nlink


def _check(root: Path) -> None:
    """Of what OverlayFS reads in a layer, there is only what whiteouts make."""
    for folder, folders, files in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in (*folders, *files))):
            for key in os.listxattr(path, follow_symlinks=False):
                assert not key.startswith("trusted.") or (
                    key == "trusted.overlay.opaque" and os.getxattr(path, key, follow_symlinks=False) == b"y"), path
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                assert found.st_blocks * 512 < MOST_BYTES


def test_fuzz_an_archive_of_images_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"

    @BOUNDS
    @given(content=archives())
    def once(content: bytes) -> None:
        path.write_bytes(content)
        try:
            with faults_named():
                archive = ImageArchive(path)
                try:
                    archive.images()
                finally:
                    archive.close()
        except InvalidArgument as error:
            error.message.encode()

    once()


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b""])
def test_fuzz_a_stream_is_unpacked_or_refused(magic: bytes) -> None:
    @BOUNDS
    @given(content=archives())
    def once(content: bytes) -> None:
        try:
            stream, _ = decompressed(io.BytesIO(magic + content[:3000]))
            while stream.read(1 << 16):
                pass
        except InvalidArgument as error:
            error.message.encode()

    once()
