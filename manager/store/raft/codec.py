"""Bytes on the wire and on disk: msgpack, and never pickle.

Importing this replaces what the library would pickle with: its `loads` would
run whatever a peer sends. Files it would pickle (`dump`, `load`) are ours, so
those calls raise. Import it before anything else of the library.
"""

from __future__ import annotations

import _socket
import socket
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]
import pysyncobj.journal
import pysyncobj.node
import pysyncobj.pickle
import pysyncobj.tcp_connection

socket.inet_ntop = _socket.inet_ntop  # the library has put one there that works on Windows alone


class PickleForbidden(RuntimeError):
    """Something tried to pickle."""


def dumps(value: Any, protocol: object = None) -> bytes:
    """Encode. The second argument is the library's, and means nothing here."""
    return bytes(msgpack.packb(value, use_bin_type=True, default=_plain))


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Decode; lists come out as tuples. Raises ValueError on anything that is not one msgpack value."""
    try:
        return msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=False)
    except (msgpack.exceptions.UnpackException, RecursionError) as error:
        raise ValueError(f"not msgpack: {error!r}") from error


def _plain(value: object) -> str:
    if isinstance(value, pysyncobj.node.Node):
        return str(value.id)
    raise TypeError(f"{type(value).__name__} has no encoding")


def _forbidden(*_arguments: object, **_options: object) -> NoReturn:
    raise PickleForbidden("pickle is not used here")


def install() -> None:
    """Take pickle out of the library. Once is enough; again does no harm."""
    module = pysyncobj.pickle
    module.dumps, module.loads = dumps, loads
    module.dump = module.load = _forbidden
    module.pickle = None
    pysyncobj.journal.dumps, pysyncobj.journal.loads = dumps, loads  # it bound the names at its import


install()
