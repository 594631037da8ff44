"""A stream that tarfile reads as a file: the same members as from a file, wherever the pieces end."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.storage.forward import ForwardReader

CONTENTS = st.lists(st.binary(max_size=1500), max_size=6)


def packed(contents: list[bytes], kind: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=kind) as tar:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{'long' * 40}-{number}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


class Drip:
    """Gives what it has in pieces of its own size, as sockets and decompressors do."""

    def __init__(self, content: bytes, step: int) -> None:
        self._rest = io.BytesIO(content)
        self._step = step

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(min(size, self._step))


@given(CONTENTS, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 3000),
       st.integers(1, 3000))
def test_tarfile_reads_the_same_from_it(contents: list[bytes], kind: int, piece_bytes: int, step: int) -> None:
    source = ForwardReader(Drip(packed(contents, kind), step), piece_bytes)
    with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[call-overload]
        found = []
        for member in tar:
            source.seek(member.offset_data)
            found.append(source.read(member.size))
    assert found == contents


def test_a_cut_stream_ends_where_it_is_cut() -> None:
    reader = ForwardReader(io.BytesIO(b"0123456789"), 4)
    assert reader.seek(100) == 10
    assert reader.read(5) == b""
    assert reader.seek(9) == 9
    assert reader.read(5) == b"9"


@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_END])
def test_what_is_over_does_not_come_again(whence: int) -> None:
    reader = ForwardReader(io.BytesIO(b"0123456789"), 4)
    assert reader.read(6) == b"012345"
    with pytest.raises(ValueError, match="front to back"):
        reader.seek(3, whence)
