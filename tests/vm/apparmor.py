"""A profile of AppArmor that denies something, and containers that are told so."""

from __future__ import annotations

import re
import shlex

from tests.vm.containers import begin_container, execute, refused_container, remove_container, run_container
from tests.vm.machines import Machine

NAME = "shoal-denies"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  deny /etc/passwd r,
}}
"""
READS = ("cat", "/etc/passwd")
DENIED = "cat: can't open '/etc/passwd': Permission denied"
NOT_STARTED = 127
NO_PROFILE = r"apparmor/exec: no such file or directory|attr/exec`: No such file or directory"
"""As runc has it, and as crun."""


def parser(machine: Machine, *words: str) -> None:
    machine.run(f"echo {shlex.quote(PROFILE)} | apparmor_parser {shlex.join(words)}")


def confined(name: str) -> dict[str, list[str]]:
    return {"SecurityOpt": [f"apparmor={name}"]}


def denies(machine: Machine) -> None:
    """To the first program of a container, to what is executed in it, and to nobody without the profile."""
    parser(machine, "--replace")
    assert "name=apparmor" in machine.client().call("GET", "/info")["SecurityOptions"]
    assert run_container(machine, "exec cat /etc/passwd", confined(NAME)) == (1, f"{DENIED}\n")
    code, said = run_container(machine, "exec cat /etc/passwd", confined("unconfined"))
    assert (code, said.partition(":")[0]) == (0, "root")
    made = begin_container(machine, "exec sleep 1000", confined(NAME))
    assert machine.client().call("GET", f"/containers/{made}/json")["AppArmorProfile"] == NAME
    assert execute(machine, made, *READS) == (1, f"{DENIED}\n")
    assert execute(machine, made, *READS, tty=True) == (1, f"{DENIED}\r\n")
    parser(machine, "--remove")
    unknown_profile(machine, made)


def unknown_profile(machine: Machine, running: str) -> None:
    """An error for a container that asks for it, and for an exec in one that began while it was there."""
    code, said = execute(machine, running, *READS)
    assert code == NOT_STARTED
    assert re.search(NO_PROFILE, said), said
    remove_container(machine, running)
    said = refused_container(machine, "true", confined(NAME))
    assert re.search(NO_PROFILE, said), said
