"""Where plugins are found, and what is read of their files."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.api.errors import ShoalError
from shoal.engine.volumes.discovery import TLS, Discovery, Endpoint, parse_address, parse_json


@pytest.mark.parametrize(("address", "endpoint"), [
    ("unix:///run/x.sock\n", Endpoint(path="/run/x.sock")),
    ("tcp://10.0.0.1:8080", Endpoint(host="10.0.0.1:8080")),
    ("http://plugin.example", Endpoint(host="plugin.example:80")),
    ("https://plugin.example/docker/plugin", Endpoint(host="plugin.example:443", tls=TLS(insecure_skip_verify=True))),
    ("tcp://[::1]:99", Endpoint(host="[::1]:99")),
])
def test_addresses(address: str, endpoint: Endpoint) -> None:
    assert parse_address(address) == endpoint


@pytest.mark.parametrize("address", ["", "/run/x.sock", "ftp://x", "tcp://", "tcp://x:99999", "unix://", "tcp://[::1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(address)


def test_json() -> None:
    endpoint = parse_json(b'{"Name": "x", "Addr": "https://h:1", "TLSConfig": {"CAFile": "/ca", "CertFile": "/c",'
                          b'"KeyFile": "/k", "InsecureSkipVerify": false}}')
    assert endpoint == Endpoint(host="h:1", tls=TLS(ca_file="/ca", cert_file="/c", key_file="/k"))
    for content in (b"", b"[]", b'{"Addr": 1}', b'{"TLSConfig": {"CAFile": []}}', b"\xff"):
        with pytest.raises(ValueError, match=r".+"):
            parse_json(content)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "listening"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        yield path


def test_folders(tmp_path: Path, listening: Path) -> None:
    """A socket, a specification and a description, each also in a folder of its name; the first found wins."""
    run, etc = tmp_path / "run", tmp_path / "etc"
    for folder in (run, etc, run / "nested", etc / "deep"):
        folder.mkdir()
    (run / "one.sock").hardlink_to(listening)
    (run / "nested/nested.sock").hardlink_to(listening)
    (run / "fake.sock").write_text("")
    (etc / "one.spec").write_text("tcp://elsewhere:1")
    (etc / "two.spec").write_text("tcp://two:2\n")
    (etc / "two.json").write_text('{"Addr": "tcp://later:1"}')
    (etc / "deep/deep.json").write_text('{"Addr": "tcp://deep:3"}')
    (etc / "bad.spec").write_text("nonsense")
    (etc / "note.txt").write_text("")
    found = Discovery([str(run), str(etc), str(tmp_path / "missing")])
    assert found.names() == ["bad", "deep", "nested", "one", "two"]
    assert found.find("one") == Endpoint(path=str(run / "one.sock"))
    assert found.find("nested") == Endpoint(path=str(run / "nested/nested.sock"))
    assert found.find("two") == Endpoint(host="two:2")
    assert found.find("deep") == Endpoint(host="deep:3")
    assert found.find("fake") is None
    with pytest.raises(ShoalError, match=r"plugin bad: .*bad.spec cannot be used: unknown protocol"):
        found.find("bad")


@pytest.mark.parametrize("name", ["../etc/one", "one/../one", "", ".", "a" * 200, "one\0"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "one.spec").write_text("tcp://one:1")
    assert Discovery([str(tmp_path)]).find(name) is None
