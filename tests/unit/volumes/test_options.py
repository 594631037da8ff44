"""The options of local volumes: what is refused, and what mount(8) is told."""

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.volumes.options import (
    address_of,
    check_foreign_name,
    check_name,
    check_options,
    is_file_system,
    mount_command,
    without_passwords,
)


@pytest.mark.parametrize("name", ["a", "a/b", ".a", "-a", "a b", "ab\n", "a" * 256, ""])
def test_local_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"volume name is too short|invalid characters"):
        check_name(name)


@pytest.mark.parametrize("name", ["a/b", ".", "..", "a\0", "a\n", "ä" * 128, "\ud800"])
def test_foreign_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_foreign_name(name)


@pytest.mark.parametrize(("options", "missing"), [
    ({"type": "tmpfs"}, "device"), ({"device": "tmpfs"}, "type"), ({"o": "size=1m"}, "device"),
    ({"o": "ro", "device": "x"}, "type"), ({"type": "", "device": "x"}, "type"),
])
def test_options_that_belong_together(options: dict[str, str], missing: str) -> None:
    with pytest.raises(InvalidArgument, match=f'missing required option: "{missing}"'):
        check_options("vol", options)


@pytest.mark.parametrize("options", [{"size": "10m"}, {"colour": "red"}, {"type": "tmpfs\0", "device": "x"}])
def test_options_that_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        check_options("vol", options)


@pytest.mark.parametrize(("options", "address", "command"), [
    pytest.param({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1"}, "",
                 ["mount", "-t", "tmpfs", "-o", "size=1m,uid=1", "--", "tmpfs", "/at"], id="tmpfs"),
    pytest.param({"type": "none", "device": "/srv", "o": "bind"}, "", ["mount", "-o", "bind", "--", "/srv", "/at"],
                 id="bind"),
    pytest.param({"type": "nfs", "device": ":/x", "o": "addr=nas,rw"}, "10.0.0.1",
                 ["mount", "-i", "-t", "nfs", "-o", "addr=10.0.0.1,rw", "--", ":/x", "/at"], id="nfs by address"),
    pytest.param({"type": "nfs", "device": "nas:/x", "o": "rw"}, "",
                 ["mount", "-t", "nfs", "-o", "rw", "--", "nas:/x", "/at"], id="nfs by its helper"),
    pytest.param({"type": "ext4", "device": "-o"}, "", ["mount", "-t", "ext4", "--", "-o", "/at"], id="no option"),
])
def test_mount_command(options: dict[str, str], address: str, command: list[str]) -> None:
    check_options("vol", options)
    assert is_file_system(options)
    assert mount_command(options, "/at", address) == command


@pytest.mark.parametrize(("options", "expected"), [
    ({"type": "nfs", "o": "rw,addr=nas.example,vers=4"}, "nas.example"),
    ({"type": "cifs", "o": "addr=10.0.0.1"}, "10.0.0.1"),
    ({"type": "nfs", "o": "rw,mountaddr=nas"}, ""), ({"type": "tmpfs", "o": "addr=nas"}, ""), ({}, ""),
])
def test_address_of(options: dict[str, str], expected: str) -> None:
    assert address_of(options) == expected


def test_passwords_are_not_told() -> None:
    assert without_passwords("mount: user=a,password=secret,rw failed") == "mount: user=a,password=********,rw failed"
