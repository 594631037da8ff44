"""Each check judges facts and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.cli.doctor.checks import cgroups, kernel, machine, network, programs
from shoal.cli.doctor.facts import Facts
from shoal.cli.doctor.findings import Finding

CHECKS = (*machine.CHECKS, *kernel.CHECKS, *cgroups.CHECKS, *programs.CHECKS, *network.CHECKS)


def examine(facts: Facts) -> Iterator[Finding]:
    """Every finding, in the order in which one would read them."""
    for check in CHECKS:
        yield from check(facts)
