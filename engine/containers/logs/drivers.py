"""Log drivers: where conmon writes what a container says, and the options that each takes. Pure.

Source of options and messages: moby, daemon/logger (loggerutils/log_tag.go, journald, jsonfilelog).
"""

from __future__ import annotations

import re
from pathlib import Path

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.engine.containers.logs import reader, rotation
from shoal.engine.containers.nouns import Container, LogConfig

JOURNALD = "journald"
DRIVERS = ("json-file", "local", "none", JOURNALD)
DEFAULT_TAG = "{{.ID}}"
_PLACEHOLDER = re.compile(r"\{\{\s*\.(\w+)\s*\}\}", re.ASCII)
_TAG_FIELDS = frozenset({"ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName"})
_MORE_FIELDS = frozenset({"labels", "labels-regex", "env", "env-regex"})
_SHORT = 12


def check(config: LogConfig) -> None:
    """Raises InvalidArgument, and NotImplementedHere for what would be lost."""
    if config.driver not in ("", *DRIVERS):
        raise InvalidArgument(f"logger: no log driver named '{config.driver}' is registered")
    if config.driver != JOURNALD:
        rotation.limits(config)
        return
    for key in config.options:
        if key in _MORE_FIELDS:
            raise NotImplementedHere(f"log opt '{key}' of journald is not supported: leave it out")
        if key != "tag":
            raise InvalidArgument(f"unknown log opt '{key}' for journald log driver")
    template = config.options.get("tag", DEFAULT_TAG)
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in _TAG_FIELDS]
    if unknown or "{{" in _PLACEHOLDER.sub("", template):
        raise InvalidArgument(f"log opt tag: {template!r}: what it may name is {', '.join(sorted(_TAG_FIELDS))}, as in "
                              f"{DEFAULT_TAG}")


def tag(container: Container) -> str:
    """What its entries are tagged with."""
    image = container.image_id.removeprefix("sha256:")
    values = {"ID": container.id[:_SHORT], "FullID": container.id, "Name": container.name, "ImageID": image[:_SHORT],
              "ImageFullID": container.image_id, "ImageName": container.config.image}
    template = container.host.log.options.get("tag", "") or DEFAULT_TAG
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def conmon_flags(container: Container, folder: Path) -> list[str]:
    """`folder`: of the container, for what is written to files."""
    match container.host.log.driver:
        case "none":
            return ["--log-path", "off"]
        case "journald":
            return ["--log-path", "journald:", "--name", container.name, "--log-tag", tag(container)]
        case _:
            return ["--log-path", f"k8s-file:{folder / reader.NAME}"]
