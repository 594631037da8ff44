"""Blobs on disk: only under the digest of their bytes, and never those of a file that others may still write to."""

import io
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.images.blobs import Blobs, BlobWriter, HashingReader, digest_of

CONTENT = b"content"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_a_file_of_the_scratch_folder_becomes_a_blob_without_a_copy(blobs: Blobs) -> None:
    path = blobs.scratch / "layer"
    path.write_bytes(CONTENT)
    blobs.share(path, digest_of(CONTENT))
    assert blobs.read(digest_of(CONTENT)) == CONTENT
    assert blobs.path(digest_of(CONTENT)).samefile(path)


def test_a_file_from_elsewhere_is_copied(blobs: Blobs, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(CONTENT)
    blobs.share(path, digest_of(CONTENT))
    path.write_bytes(b"written later")
    assert blobs.read(digest_of(CONTENT)) == CONTENT
    assert list(blobs.scratch.iterdir()) == []


def test_sharing_what_is_here_changes_nothing(blobs: Blobs) -> None:
    path = blobs.scratch / "layer"
    path.write_bytes(CONTENT)
    for _ in range(2):
        blobs.share(path, digest_of(CONTENT))
    assert blobs.digests() == [digest_of(CONTENT)]
    assert list(blobs.scratch.iterdir()) == [path]


@pytest.mark.parametrize("writer", [None, BlobWriter(io.BytesIO())], ids=["hashed", "written"])
def test_wrong_content_has_no_clean_end(writer: BlobWriter | None) -> None:
    reader = HashingReader(io.BytesIO(CONTENT), writer)
    reader.expect(digest_of(b"other"), "layer")
    assert reader.read(len(CONTENT)) == CONTENT
    with pytest.raises(InvalidArgument, match="layer: digest mismatch"):
        reader.read(1)


def test_what_was_expected_too_late_is_seen_all_the_same() -> None:
    """A layer may be shorter than what tells how it is compressed."""
    reader = HashingReader(io.BytesIO(b""))
    assert reader.read(6) == b""
    reader.expect(digest_of(CONTENT), "layer")
    with pytest.raises(InvalidArgument, match="layer: digest mismatch"):
        reader.drain()


def test_what_is_read_is_written(blobs: Blobs) -> None:
    with blobs.writer(digest_of(CONTENT), len(CONTENT)) as blob:
        reader = HashingReader(io.BytesIO(CONTENT), blob)
        reader.expect(digest_of(CONTENT), "layer")
        reader.drain()
    assert blobs.read(reader.digest) == CONTENT
