"""`vagrant up` for real: a swarm of two emulated machines, what it serves, how it heals, and that nothing is left."""

from __future__ import annotations

import pytest

from tests.vagrant.conftest import SLOWNESS, Lab

pytestmark = [pytest.mark.vagrant, pytest.mark.timeout(3000)]

MANAGER, WORKER = "192.168.56.11", "192.168.56.21"


def on_manager(lab: Lab, command: str, *, check: bool = True) -> str:
    return lab.vagrant("ssh", "m1", "--no-tty", "--command", command, check=check)


def ask(lab: Lab, address: str) -> str:
    return lab.host("curl", "-s", "-m", "60", f"http://{address}:8080/", check=False)


def running(said: str) -> list[list[str]]:
    """The rows of `service ps` that run."""
    rows = [line.split() for line in said.splitlines() if "." in line]
    return [row for row in rows if row[3:5] == ["running", "running"]]


def test_up_makes_a_swarm_that_serves_the_example(lab: Lab) -> None:
    said = lab.vagrant("up")
    assert "Reach the example" in said
    nodes = on_manager(lab, "shoal node ls")
    assert nodes.count(" ready ") == 2 and "leader" in nodes
    lab.eventually(lambda: on_manager(lab, "shoal service ls"), lambda text: "4/4" in text and "2/2" in text,
                   within_s=20 * SLOWNESS)
    rows = running(on_manager(lab, "shoal service ps hello"))
    assert {row[2] for row in rows} == {"m1", "w1"}
    for address, name in ((MANAGER, "m1"), (WORKER, "w1")):
        heard = lab.eventually(lambda at=address: ask(lab, at), lambda text: "hello." in text, 10 * SLOWNESS)
        assert f"front on {name} asked http://hello/" in heard


def test_a_front_is_answered_by_replicas_of_both_machines(lab: Lab) -> None:
    heard = [ask(lab, WORKER) for _ in range(12)]
    assert any("on m1\n" in line for line in heard) and any("on w1\n" in line for line in heard)


def test_up_again_changes_nothing(lab: Lab) -> None:
    before = on_manager(lab, "shoal service ps hello | awk '{print $1}'; sudo sha256sum /var/lib/shoal-lab.state/wheel")
    said = lab.vagrant("up")
    assert "shoal: " not in said and "Running provisioner" not in said
    said = lab.vagrant("provision", "m1")
    assert "shoal: installing" not in said and "shoal: making" not in said and "shoal: joining" not in said
    after = on_manager(lab, "shoal service ps hello | awk '{print $1}'; sudo sha256sum /var/lib/shoal-lab.state/wheel")
    assert after == before


def test_a_halted_machine_s_tasks_start_elsewhere_and_it_comes_back(lab: Lab) -> None:
    lab.vagrant("halt", "w1")
    lab.eventually(lambda: on_manager(lab, "shoal service ps hello"),
                   lambda text: [row[2] for row in running(text)] == ["m1"] * 4, within_s=30 * SLOWNESS)
    assert "on m1\n" in lab.eventually(lambda: ask(lab, MANAGER), lambda text: "hello." in text, 10 * SLOWNESS)
    lab.vagrant("up", "w1")
    lab.eventually(lambda: on_manager(lab, "shoal node ls"), lambda text: text.count(" ready ") == 2, 30 * SLOWNESS)
    heard = lab.eventually(lambda: ask(lab, WORKER), lambda text: "hello." in text, within_s=30 * SLOWNESS)
    assert "front on w1" in heard


def test_destroy_leaves_nothing(lab: Lab) -> None:
    lab.vagrant("destroy", "--force")
    left = lab.libvirt.left()
    assert left["machines"] == [] and left["networks"] == []
    assert [name for name in left["disks"] if "vagrant_box_image" not in name] == []  # the box stays, as with any box
    assert not (lab.folder / ".lab").exists()
