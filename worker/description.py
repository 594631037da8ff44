"""What this host tells the managers of itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version

from shoal.api.objects import NodeDescription
from shoal.api.specs import SECOND_NS, Resources

PLUGINS = (
    ("Log", "json-file"),
    ("Network", "bridge"),
    ("Network", "host"),
    ("Network", "null"),
    ("Network", "overlay"),
)


def describe(labels: dict[str, str], volume_drivers: Iterable[str] = ("local",)) -> NodeDescription:
    """As it is now. `labels`: the engine's; `volume_drivers`: those that it finds."""
    kernel = os.uname()
    return NodeDescription(
        hostname=kernel.nodename,
        os="linux",
        architecture=kernel.machine,
        resources=Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * SECOND_NS,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ),
        engine_version=version("shoal"),
        engine_labels=labels,
        plugins=(*PLUGINS, *(("Volume", name) for name in volume_drivers)),
    )
