"""/etc/hosts and /etc/resolv.conf as containers find them."""

from __future__ import annotations

import pytest

from shoal.overlay.files import Resolv, hosts, parse_resolv, reachable, resolv_conf

HOST = Resolv(("127.0.0.53", "10.0.0.53"), ("lan",), ("edns0",))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_parse() -> None:
    text = ("; c\n# c\nnameserver 10.0.0.53 # the router\nsearch a\ndomain b c\n"
            "options x\noptions y z\nnonsense\nsearch\n")
    assert parse_resolv(text) == Resolv(("10.0.0.53",), ("b", "c"), ("x", "y", "z"))


@pytest.mark.parametrize(("settings", "expected"), [
    pytest.param({"embedded": False}, ["nameserver 10.0.0.53", "search lan", "options edns0"],
                 id="the host's, but for its loopback"),
    pytest.param({"embedded": True}, ["nameserver 127.0.0.11", "search lan", "options edns0 ndots:0"],
                 id="names of our own"),
    pytest.param({"embedded": False, "dns": ("1.2.3.4",), "search": (".",), "options": ("ndots:2",)},
                 ["nameserver 1.2.3.4", "options ndots:2"], id="the container's own"),
    pytest.param({"embedded": True, "dns": ("1.2.3.4",), "options": ("ndots:2",)},
                 ["nameserver 127.0.0.11", "search lan", "options ndots:2"],
                 id="its servers are asked by the resolver"),
])
def test_resolv_conf(settings: dict[str, object], expected: list[str]) -> None:
    assert lines(resolv_conf(HOST, **settings)) == expected  # type: ignore[arg-type]


def test_a_host_with_loopback_servers_only() -> None:
    assert reachable(("127.0.0.53", "::1", "junk")) == ()
    assert "nameserver 8.8.8.8" in resolv_conf(Resolv(("127.0.0.53",)), embedded=False)


def test_hosts() -> None:
    text = hosts(["172.17.0.2"], ["box"], ["db:10.0.0.9", "up:host-gateway", "six:fd00::1", "bad", "none:host-gateway"],
                 gateway="172.17.0.1")
    found = [tuple(line.split()) for line in text.splitlines()]
    assert found[0] == ("127.0.0.1", "localhost")
    assert found[-5:] == [("10.0.0.9", "db"), ("172.17.0.1", "up"), ("fd00::1", "six"), ("172.17.0.1", "none"),
                          ("172.17.0.2", "box")]
