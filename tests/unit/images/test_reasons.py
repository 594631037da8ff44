"""Errors of the network, in Docker's words."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from shoal.engine.images.distribution.reasons import reason

KEY = ConnectionKey("r.example", 443, True, True, None, None, None)


@pytest.mark.parametrize(("error", "words"), [
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
     "dial tcp: lookup r.example: no such host"),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
     "dial tcp: lookup r.example: Temporary failure in name resolution"),
    (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError()),
     "dial tcp r.example:443: connect: connection refused"),
    (TimeoutError(), "no answer in time"),
    (aiohttp.ServerDisconnectedError(), "Server disconnected"),
    (OSError(), "OSError"),
])
def test_reasons(error: Exception, words: str) -> None:
    """Those of TLS are seen with a real registry, in tests/integration/images/test_sources.py."""
    assert reason(error) == words
