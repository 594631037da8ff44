"""How much HTTP/2 it takes to refuse a call."""

import pytest

from shoal.daemon.http import buildkit

HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7


class Client:
    """A connection with what the client sends, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.told = b""

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def write(self, data: bytes) -> None:
        self.told += data


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        length = int.from_bytes(data[:3])
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def fields(block: bytes) -> dict[str, str]:
    assert block[:1] == b"\x88"
    found, rest = {}, block[1:]
    while rest:
        assert rest[0] == 0
        name, rest = text(rest[1:])
        found[name], rest = text(rest)
    return found


def text(data: bytes) -> tuple[str, bytes]:
    """RFC 7541, 5.1 and 5.2."""
    length, at = data[0], 1
    if length == 127:
        shift = 0
        while True:
            byte = data[at]
            at += 1
            length += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
    return data[at : at + length].decode(), data[at + length :]


async def test_every_call_is_refused_in_words() -> None:
    said = (buildkit.PREFACE + buildkit.frame(SETTINGS, 0, 0, bytes(6)) + buildkit.frame(PING, 0, 0, b"12345678")
            + buildkit.frame(SETTINGS, 1, 0) + buildkit.frame(HEADERS, 4, 1, b"whatever")
            + buildkit.frame(0, 1, 1, b"its body") + buildkit.frame(HEADERS, 4, 3, b"again"))
    client = Client(*(said[at : at + 7] for at in range(0, len(said), 7)))
    await buildkit.refuse_calls(client)
    told = frames(client.told)
    assert [frame[:3] for frame in told] == [
        (SETTINGS, 0, 0), (SETTINGS, 1, 0), (PING, 1, 0), (HEADERS, 5, 1), (HEADERS, 5, 3)]
    assert told[2][3] == b"12345678"
    assert fields(told[3][3]) == {
        "content-type": "application/grpc", "grpc-status": "12", "grpc-message": buildkit.WORDS}


@pytest.mark.parametrize("said", [
    b"", b"GET / HTTP/1.1\r\n\r\n and more of that", buildkit.PREFACE[:10],
    buildkit.PREFACE + b"\xff\xff\xff" + bytes(6), buildkit.PREFACE + buildkit.frame(GOAWAY, 0, 0, bytes(8)),
    buildkit.PREFACE + buildkit.frame(HEADERS, 4, 1, b"cut off")[:-2]])
async def test_what_is_no_call_is_let_go(said: bytes) -> None:
    client = Client(said)
    await buildkit.refuse_calls(client)
    assert all(frame[0] == SETTINGS for frame in frames(client.told))
