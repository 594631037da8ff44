"""Contexts from git, stages that need one another's company, and the networks that steps are in."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.cli.client import Client, ClientError
from tests.integration.daemon.host import Machine, until
from tests.integration.daemon.repository import REPOSITORY

pytestmark = [pytest.mark.root, pytest.mark.clients]

MEET = "RUN --mount=type=cache,target=/meet,id=meeting touch /meet/{} && until [ -e /meet/{} ]; do sleep 0.05; done\n"


def build_from(host: Machine, remote: str) -> str:
    """What the image says of its version. (The docker command would clone it by itself.)"""
    said = "".join(message.get("stream", "") for message in Client(f"unix://{host.socket}").messages(
        "POST", "/build", {"t": "of-git", "remote": remote}))
    assert "Successfully tagged of-git:latest" in said
    return host.docker("run", "--rm", "of-git", "cat", "/version")


def test_a_context_may_be_a_git_repository(host: Machine, repository: Path) -> None:
    assert build_from(host, REPOSITORY) == "v2"
    assert build_from(host, f"{REPOSITORY}#v1") == "v1"
    assert build_from(host, f"{REPOSITORY}#main:sub") == "sub-v2"
    assert host.docker("run", "--rm", "of-git", "ls", "/in") == "Dockerfile"
    assert build_from(host, f"{REPOSITORY}#refs/tags/v1:sub") == "sub-v1"
    for wrong in ("#v3", "#v1:../..", "#v1:absent", "#--upload-pack=x"):
        with pytest.raises(ClientError, match=r"error fetching|git reference|git context"):
            build_from(host, REPOSITORY + wrong)
    until(lambda: not list((host.root / "data/build/work").iterdir()), "what was cloned is gone")
    host.docker("rmi", "--force", "of-git")
    host.docker("builder", "prune", "--force", "--all")


def test_stages_that_do_not_need_each_other_go_on_at_once(host: Machine) -> None:
    """Each ends only once it has seen the other one run."""
    text = ("FROM busybox AS one\n" + MEET.format("one", "two") + "RUN echo 1 > /it\n"
            "FROM busybox AS two\n" + MEET.format("two", "one") + "RUN echo 2 > /it\n"
            "FROM busybox\nCOPY --from=one /it /1\nCOPY --from=two /it /2\n")
    host.docker("build", "--tag", "both", "-", stdin=text)
    assert host.docker("run", "--rm", "both", "cat", "/1", "/2").split() == ["1", "2"]
    host.docker("rmi", "both")
    host.docker("builder", "prune", "--force", "--all")


@pytest.mark.parametrize(("network", "interfaces"), [
    ("none", {"lo"}), ("default", {"lo", "eth0"}), ("own", {"lo", "eth0"}), ("host", {"lo", "shoal0"})])
def test_steps_are_in_the_network_that_is_asked_for(host: Machine, network: str, interfaces: set[str]) -> None:
    host.docker("network", "create", "own")
    said = host.docker("build", "--no-cache", "--network", network, "-", stdin=(
        "FROM busybox\nRUN echo has $(ls /sys/class/net)\n"))
    has = next(line for line in said.splitlines() if line.startswith("has "))
    assert interfaces <= set(has.split()[1:]), has
    assert network == "host" or set(has.split()[1:]) <= {"lo", "eth0"}
    host.docker("builder", "prune", "--force", "--all")
