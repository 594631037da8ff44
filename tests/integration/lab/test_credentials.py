"""Who in a swarm is told the credentials of a service: the hosts of its tasks, for as long as they have one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]

SENT = base64.urlsafe_b64encode(b'{"username":"me","password":"hush-hush"').decode()[:48].encode()
"""How the docker command's X-Registry-Auth begins."""


def test_only_hosts_whose_tasks_need_credentials_are_told_them(cluster: Cluster, tmp_path: Path) -> None:
    auths = {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:hush-hush").decode()}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    cluster.docker("--config", str(tmp_path), "service", "create", "--detach", "--with-registry-auth",
                   "--no-resolve-image", "--constraint", "node.hostname==w1", "--init", "--name", "web", "busybox",
                   "sleep", "1000")
    cluster.service("everywhere", None)
    cluster.runs("everywhere", 5)
    cluster.runs("web", 1)
    everywhere = cluster.any_manager().call("GET", "/services/everywhere")["ID"].encode()
    known = {host: eventually(lambda host=host: heard(cluster, host), lambda raw: everywhere in raw)
             for host in cluster.names}
    assert eventually(lambda: SENT in heard(cluster, "w1"))
    assert [host for host, raw in known.items() if SENT in raw and host != "w1"] == []

    cluster.docker("service", "update", "--detach", "--constraint-rm", "node.hostname==w1", "--constraint-add",
                   "node.hostname==w2", "web")  # as people do, without the credentials: they go with it
    eventually(lambda: cluster.hosts_of("web"), lambda hosts: hosts == ["w2"])
    assert eventually(lambda: SENT in heard(cluster, "w2"))
    cluster.any_manager().call("DELETE", "/services/web")
    eventually(lambda: [host for host in cluster.names if SENT in heard(cluster, host)], lambda hosts: not hosts)


def heard(cluster: Cluster, host: str) -> bytes:
    """What the managers last told the host, as it keeps it."""
    (path,) = cluster.lab.data_root(cluster.lab.host(host)).rglob("assignments.msgpack")
    return path.read_bytes()
