"""What containers leave on a machine: every mount, link, rule, namespace, cgroup, process, file and volume of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from shoal.lab.processes import command_line
from tests.integration.daemon.host import CGROUPS, Machine

CONTENT = ("overlay2/layers", "images", "volumes/metadata")
"""Below the data root: what images have, which no container changes."""

_NUMBER = re.compile(r"\b\d+\b")


def traces(machine: Machine) -> set[str]:
    """A line for each. What two lists do not share was made, or taken away, between them."""
    return {*_mounts(machine), *_network(machine), *_cgroups(machine), *_processes(machine), *_files(machine)}


def mentions(machine: Machine, words: set[str]) -> list[str]:
    """The records and rules that name one of these ids or names."""
    found = []
    for root in (machine.root / "data", machine.root / "run"):
        for path in root.rglob("*.json"):
            if (text := _text(path)) and (named := sorted(word for word in words if word in text)):
                found.append(f"{path}: {named}")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _mounts(machine: Machine) -> list[str]:
    lines = Path(f"/proc/{machine.init_pid}/mountinfo").read_text().splitlines()
    return [f"mount {line.split()[4]}" for line in lines]


def _network(machine: Machine) -> list[str]:
    links = machine.inside("ip", "-o", "link").stdout.splitlines()
    rules = machine.inside("nft", "-s", "list", "ruleset").stdout.splitlines()
    return [f"link {line.split()[1]}" for line in links] + [f"rule {line.strip()}" for line in rules]


def _cgroups(machine: Machine) -> list[str]:
    roots = [CGROUPS, *CGROUPS.iterdir()]
    return [f"cgroup {folder}" for root in roots for folder, _, _ in os.walk(root / machine.cgroup)]


def _processes(machine: Machine) -> list[str]:
    """By what they run: numbers change with every start. An exec spawner belongs to shoald, two of them do not."""
    namespace = Path(f"/proc/{machine.init_pid}/ns/pid").readlink()
    found, spawners = [], 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inside = (entry / "ns/pid").readlink() == namespace
        except OSError:
            continue
        if not inside:
            continue
        words = " ".join(command_line(int(entry.name)))
        if "containers.spawner" in words:
            spawners += 1
        else:
            found.append(f"process {_NUMBER.sub('N', words or '(zombie)')}")
    return [*found, *["process of the spawner, left behind"] * (spawners > 1)]


def _files(machine: Machine) -> list[str]:
    found = []
    for root in (machine.root / "data", machine.root / "run"):
        for folder, folders, names in os.walk(root):
            if any(Path(folder).is_relative_to(root / each) for each in CONTENT):
                folders.clear()
                continue
            found += [f"file {folder}/{name}" for name in (*folders, *names)]
    return found
