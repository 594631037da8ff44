"""Which kills the kernel's log tells of, in its own words."""

import pytest

from shoal.engine.containers.oci.kernellog import tells_of

SCOPE = "/system.slice/shoal-e314f862723c.scope"
KILL = ("6,812,400250000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={0},mems_allowed=0,"
        "oom_memcg={0},task_memcg={0},task=sh,pid=1412,uid=0\n")
OTHERS = ["6,1,0,-;Linux version 6.1.0-28-cloud-amd64 (debian-kernel@lists.debian.org)\n",
          "3,813,400251000,-;Memory cgroup out of memory: Killed process 1412 (sh) total-vm:18304kB\n SUBSYSTEM=x\n"]


@pytest.mark.parametrize(("killed", "since_s", "told"), [
    pytest.param(SCOPE, 390.0, True, id="in it"),
    pytest.param(f"{SCOPE}/init.scope", 390.0, True, id="below it"),
    pytest.param(SCOPE, 401.0, False, id="before it was started again"),
    pytest.param("/system.slice/shoal-e314f862723c.scope2", 390.0, False, id="in another"),
    pytest.param("/system.slice", 390.0, False, id="at the limit of the slice"),
])
def test_kills(killed: str, since_s: float, told: bool) -> None:
    assert tells_of([*OTHERS, KILL.format(killed), *OTHERS], SCOPE, since_s) is told


def test_a_host_without_memory_is_no_limit_of_a_container() -> None:
    record = KILL.replace("CONSTRAINT_MEMCG", "CONSTRAINT_NONE").replace("oom_memcg={0},", "global_oom,").format(SCOPE)
    assert not tells_of([record], SCOPE, 0.0)
