"""The programs that Shoal starts: runtimes, conmon and what networks need. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.cli.doctor.facts import Facts, Program
from shoal.cli.doctor.findings import Finding, ok, problem, warning

RUNTIMES = ("runc", "crun")
CONMON_OLDEST_TESTED = (2, 1, 6)


def runtime(facts: Facts) -> Iterator[Finding]:
    """One that works is enough; it is tried with a container."""
    working = [trial for trial in facts.runtimes if not trial.refusal]
    installed = {name for name in RUNTIMES if facts.programs.get(name, Program()).path}
    installed |= {trial.name for trial in facts.runtimes}
    absent = [name for name in RUNTIMES if name not in installed]
    refused = "; ".join(f"{trial.name} {trial.version}: {trial.refusal}" for trial in facts.runtimes if trial.refusal)
    if working:
        first = working[0]
        others = f" ({refused})" if refused else ""
        yield ok("OCI runtime", f"{first.name} {first.version} ran a container, cgroup driver {first.driver}{others}")
    elif refused:
        hint = f"; or install {' or '.join(absent)}" if absent else ""
        yield problem("OCI runtime", refused, "no container can start", f"mend what it complains of{hint}")
    elif not installed:
        yield problem("OCI runtime", "neither runc nor crun is installed", "no container can start",
                      "apt-get install runc")
    else:
        yield warning("OCI runtime", f"{', '.join(sorted(installed))} installed, not tried", "only root can try it",
                      "run shoal doctor as root")


def needed(facts: Facts) -> Iterator[Finding]:
    conmon = facts.programs.get("conmon")
    if conmon is None or not conmon.path:
        yield problem("conmon", "not installed", "no container can start", "apt-get install conmon")
    elif _numbers(conmon.version) < CONMON_OLDEST_TESTED:
        yield warning("conmon", conmon.version or "of unknown version",
                      f"Shoal is tested from conmon {'.'.join(map(str, CONMON_OLDEST_TESTED))} on")
    else:
        yield ok("conmon", conmon.version)
    for name, package, lost in (
        ("catatonit", "catatonit", "docker run --init and the hosts of a lab do not start"),
        ("nsenter", "util-linux", "shoal lab cannot enter its hosts"),
        ("ip", "iproute2", "shoal doctor and shoal lab cannot try networks"),
    ):
        program = facts.programs.get(name)
        if program is None or not program.path:
            yield warning(name, "not installed", lost, f"apt-get install {package}")
        else:
            yield ok(name, program.version or program.path)


def libraries(facts: Facts) -> Iterator[Finding]:
    if facts.libnftables:
        yield ok("libnftables", "there")
    else:
        yield problem("libnftables", "cannot be loaded", "no networks: the daemon does not start",
                      "apt-get install libnftables1")
    if facts.seccomp_profile:
        yield ok("seccomp profile", "there")
    else:
        yield problem("seccomp profile", "/usr/share/containers/seccomp.json is missing",
                      "no container starts unless with --security-opt seccomp=unconfined",
                      "apt-get install golang-github-containers-common")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".") if word.isdecimal())


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (runtime, needed, libraries)
