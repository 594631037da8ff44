"""Docker's old links: what they put into /etc/hosts and the environment."""

from __future__ import annotations

import pytest

from shoal.engine.containers.links import Link, environment, hosts_lines


def link(*ports: str, alias: str = "my-db", env: tuple[str, ...] = ()) -> Link:
    return Link(alias=alias, name="db", hostname="abc", address="172.17.0.2", env=env, ports=ports)


@pytest.mark.parametrize(("alias", "names"), [
    pytest.param("store", "store abc db", id="alias, hostname, name"),
    pytest.param("db", "db abc", id="each once"),
])
def test_hosts(alias: str, names: str) -> None:
    assert hosts_lines([link(alias=alias)]) == f"172.17.0.2\t{names}\n"


def test_no_ports_and_what_is_not_passed_on() -> None:
    found = environment([link(env=("FOO=1=2", "HOME=/", "PATH=/bin", "BARE"))], "web")
    assert found == ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_FOO=1=2"]


def test_ports_tcp_first_and_ranges() -> None:
    found = environment([link("53/udp", "81/tcp", "80/tcp", "90/tcp", alias="a")], "web")
    assert found[0] == "A_PORT=tcp://172.17.0.2:80"
    assert found[1:5] == ["A_PORT_80_TCP=tcp://172.17.0.2:80", "A_PORT_80_TCP_ADDR=172.17.0.2",
                          "A_PORT_80_TCP_PORT=80", "A_PORT_80_TCP_PROTO=tcp"]
    assert [entry for entry in found if "_START=" in entry or "_END=" in entry] == [
        "A_PORT_80_TCP_START=tcp://172.17.0.2:80", "A_PORT_80_TCP_PORT_START=80",
        "A_PORT_80_TCP_END=tcp://172.17.0.2:81", "A_PORT_80_TCP_PORT_END=81"]
    assert found[-1] == "A_NAME=/web/a" and "A_PORT_53_UDP=udp://172.17.0.2:53" in found
