"""Where the API is served, out of what the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.api.errors import InvalidArgument
from shoal.daemon.listeners import TcpAddress, UnixAddress, addresses, parse, tls_context
from shoal.daemon.settings import Settings, from_arguments


@pytest.mark.parametrize(("host", "tls", "expected"), [
    pytest.param("unix:///run/x.sock", False, UnixAddress(Path("/run/x.sock")), id="a socket"),
    pytest.param("tcp://127.0.0.1:1234", False, TcpAddress("127.0.0.1", 1234), id="a port"),
    pytest.param("tcp://127.0.0.1", False, TcpAddress("127.0.0.1", 2375), id="the port without TLS"),
    pytest.param("tcp://127.0.0.1", True, TcpAddress("127.0.0.1", 2376), id="the port with TLS"),
    pytest.param("tcp://:2376", True, TcpAddress("", 2376), id="every address"),
    pytest.param("tcp://[::1]:99", False, TcpAddress("::1", 99), id="IPv6"),
    pytest.param("tcp://[::1]", False, TcpAddress("::1", 2375), id="IPv6 without a port"),
    pytest.param("tcp://localhost:99/", False, TcpAddress("localhost", 99), id="localhost"),
])
def test_hosts(host: str, tls: bool, expected: object) -> None:
    assert parse(host, tls=tls) == expected


@pytest.mark.parametrize("host", [
    "", "unix://relative", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:x", "tcp://name.example:2376",
    "fd://", "http://127.0.0.1:2375", "127.0.0.1:2375",
])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot serve on"):
        parse(host, tls=False)


@pytest.mark.parametrize(("host", "more", "served"), [
    pytest.param("tcp://127.0.0.1:2375", {}, True, id="loopback, open"),
    pytest.param("tcp://localhost:2375", {}, True, id="loopback by name"),
    pytest.param("tcp://10.0.0.1:2375", {}, False, id="everybody, open"),
    pytest.param("tcp://:2375", {}, False, id="every address, open"),
    pytest.param("tcp://10.0.0.1:2376", {"tls": True}, False, id="secret, but anybody's"),
    pytest.param("tcp://10.0.0.1:2376", {"tlsverify": True}, True, id="with certificates"),
    pytest.param("tcp://10.0.0.1:2375", {"tls": False}, True, id="open, in so many words"),
    pytest.param("tcp://10.0.0.1:2376", {"tls": True, "tlsverify": False}, True, id="anybody's, in so many words"),
])
def test_who_may_reach_it(host: str, more: dict[str, Any], served: bool) -> None:
    settings = Settings(hosts=(host,), **more)
    if served:
        assert len(addresses(settings)) == 1
    else:
        with pytest.raises(InvalidArgument, match="without tlsverify"):
            addresses(settings)


def test_the_flags_are_dockerds() -> None:
    settings = from_arguments(["-H", "tcp://10.0.0.1", "--tlsverify", "--tlscacert=/ca", "--tlscert", "/cert",
                               "--tlskey", "/key"])
    assert (settings.tlsverify, settings.tlscacert, settings.tlscert, settings.tlskey) == (True, "/ca", "/cert", "/key")
    assert addresses(settings) == [TcpAddress("10.0.0.1", 2376)]
    assert from_arguments(["--tls=false"]).tls is False


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert tls_context(Settings()) is None
    with pytest.raises(InvalidArgument, match=r"nothing\.pem"):
        tls_context(Settings(tls=True, tlscert=str(tmp_path / "nothing.pem"), tlskey=str(tmp_path / "key.pem")))
