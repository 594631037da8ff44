"""Calls of the Docker Engine API from a command line: plain, streaming and hijacked."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from shoal.api.errors import ShoalError
from shoal.cli.endpoint import DEFAULT_HOST, Endpoint, connect, resolve

__all__ = ["DEFAULT_HOST", "Client", "ClientError", "demultiplex"]

API_VERSION = "1.50"
STDOUT, STDERR = 1, 2
_FRAME = struct.Struct(">BxxxI")
CHUNK = 64 * 1024
JSON = {"Content-Type": "application/json"}


class ClientError(ShoalError):
    """The daemon refused, or could not be reached."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code  # HTTP status; 0: not reached


class Client:
    """One daemon: the one at `host`, of `context`, or that the environment and the context in use name."""

    def __init__(self, host: str | None = None, version: str = API_VERSION, context: str | None = None) -> None:
        self._prefix = f"/v{version}"
        self._given = (host, context)

    @cached_property
    def endpoint(self) -> Endpoint:
        """Found out when it is needed first. Raises ContextError."""
        return resolve(*self._given)

    @property
    def host(self) -> str:
        return self.endpoint.host

    def connect(self) -> socket.socket:
        """A connection to the daemon. Raises ClientError where none answers."""
        try:
            return connect(self.endpoint)
        except OSError as error:
            raise ClientError(f"cannot reach a daemon at {self.host}: {error}. Is shoald running?") from error

    def call(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, *,
             headers: Mapping[str, str] | None = None) -> Any:
        """The decoded answer; None where it is empty. Raises ClientError with the daemon's message."""
        sent = {**(JSON if body is not None else {}), **(headers or {})}
        with self._answer(method, path, query, _json(body), sent) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def text(self, method: str, path: str, query: dict[str, Any] | None = None) -> bytes:
        """The answer's body as it is."""
        with self._answer(method, path, query, None, {}) as answer:
            return answer.read()

    def upload(self, path: str, query: dict[str, Any], content: BinaryIO, headers: Mapping[str, str] | None = None
               ) -> Iterator[dict[str, Any]]:
        """Send a file; the progress messages as they come."""
        more = {**(headers or {}), "Content-Type": "application/x-tar"}
        with self._answer("POST", path, query, content, more) as answer:
            yield from _messages(answer)

    def messages(self, method: str, path: str, query: dict[str, Any] | None = None, *,
                 headers: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """The JSON messages of a streaming answer."""
        with self._answer(method, path, query, None, headers or {}) as answer:
            yield from _messages(answer)

    def frames(self, path: str, query: dict[str, Any] | None = None) -> Iterator[tuple[int, bytes]]:
        """The (stream, bytes) frames of a multiplexed answer, as logs have them."""
        with self._answer("GET", path, query, None, {}) as answer:
            while header := answer.read(_FRAME.size):
                stream, length = _FRAME.unpack(header)
                yield stream, answer.read(length)

    def hijack(self, path: str, query: dict[str, Any] | None = None, body: Any = None) -> socket.socket:
        """POST, then take the connection over: the socket carries the container's streams."""
        connection = self._connect()
        headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
        connection.request("POST", self._target(path, query), _json(body) or b"", headers)
        taken = connection.sock
        answer = _HeadersOnly(taken, method="POST")
        answer.begin()
        if answer.status not in (101, 200):
            raise _refusal(answer)
        answer.release()
        return taken

    def _answer(
        self, method: str, path: str, query: dict[str, Any] | None, body: Any,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection = self._connect()
        chunked = body is not None and not isinstance(body, bytes)
        try:
            connection.request(method, self._target(path, query), body, headers, encode_chunked=chunked)
            answer = connection.getresponse()
        except OSError as error:
            raise ClientError(f"cannot talk to {self.host}: {error}") from error
        if answer.status >= 400:
            raise _refusal(answer)
        return answer

    def _target(self, path: str, query: dict[str, Any] | None) -> str:
        return self._prefix + quote(path, safe="/:@") + _query(query)

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        return connection


class _HeadersOnly(http.client.HTTPResponse):
    """Reads the head of an answer byte by byte, so that nothing of the stream behind it is swallowed."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        super().__init__(sock, method=method)
        self.fp = sock.makefile("rb", buffering=0)  # type: ignore[assignment]  # RawIOBase reads lines as well

    def release(self) -> None:
        """Let go of the socket without closing it."""
        self.fp = None  # type: ignore[assignment]  # as http.client itself marks a closed answer


def demultiplex(stream: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The (stream, bytes) frames that come over a hijacked connection, until it ends."""
    reader = stream.makefile("rb")
    while len(header := reader.read(_FRAME.size)) == _FRAME.size:
        number, length = _FRAME.unpack(header)
        while length:
            piece = reader.read1(min(length, CHUNK))
            if not piece:
                return
            length -= len(piece)
            yield number, piece


def _query(query: dict[str, Any] | None) -> str:
    """A tuple is a parameter that is there several times."""
    words = [(name, _word(one)) for name, value in (query or {}).items() if value is not None
             for one in (value if isinstance(value, tuple) else (value,))]
    return f"?{urlencode(words)}" if words else ""


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _json(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _messages(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.strip():
            message = json.loads(line)
            if "error" in message:
                raise ClientError(message["error"])
            yield message


def _refusal(answer: http.client.HTTPResponse) -> ClientError:
    text = answer.read().decode(errors="replace")
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.strip() or f"the daemon answered {answer.status} {answer.reason}"
    return ClientError(message, answer.status)
