"""What the API shows of images, and the forms in which platforms come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.daemon.http.times import NEVER, SECOND_NS, rfc3339, stamp_ns
from shoal.engine.images.archive import ARCHITECTURES
from shoal.engine.images.config import Image, config_json
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.images import Images
from shoal.engine.images.removal import Removal
from shoal.engine.storage.driver import chain_ids


class _PlatformWire(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


_platforms = msgspec.json.Decoder(_PlatformWire)


def parse_platform_json(text: str) -> Platform | None:
    """`{"os": "linux", "architecture": "arm", "variant": "v7"}`; None for "". Raises InvalidArgument."""
    if not text:
        return None
    try:
        found = _platforms.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from error
    if not found.os and not found.architecture and found.variant:
        raise InvalidArgument("optional platform fields provided, but OS and Architecture are missing")
    if not found.os or not found.architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return Platform(found.os, found.architecture, found.variant)


def provides(image: Image, platform: str) -> bool:
    """Whether an image is for a platform such as linux/amd64; every image is for ""."""
    system, _, rest = platform.partition("/")
    architecture = rest.partition("/")[0]
    return system in ("", image.os) and ARCHITECTURES.get(architecture, architecture) in ("", image.architecture)


def image_summary(image: Image, parent: str = "", *, legacy: bool = False, shared_bytes: int = -1) -> dict[str, Any]:
    """A line of `docker images`. `legacy`: for clients older than 1.44."""
    summary = {
        "Id": image.id,
        "ParentId": parent,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [reference.parse(digest).familiar for digest in image.repo_digests],
        "Created": stamp_ns(image.created) // SECOND_NS,
        "Size": image.size,
        "SharedSize": shared_bytes,
        "Labels": image.config.labels,
        "Containers": -1,
    }
    if legacy:
        summary["VirtualSize"] = image.size
        if not image.repo_tags and not image.repo_digests:
            summary["RepoTags"], summary["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]
    return summary


def inspect_json(image: Image, parent: str, *, driver: str, legacy: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [reference.parse(digest).familiar for digest in image.repo_digests],
        "Parent": parent,
        "Comment": image.comment,
        "Created": image.created or NEVER,
        "DockerVersion": "",
        "Author": image.author,
        "Config": _full_config(image),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": driver, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": rfc3339(int(image.last_tagged * SECOND_NS))},
    }
    if image.variant:
        body["Variant"] = image.variant
    if legacy:
        body["VirtualSize"] = image.size
    return body


def _full_config(image: Image) -> dict[str, Any]:
    config: dict[str, Any] = {"User": "", "Env": [], "Cmd": [], "Entrypoint": [], "WorkingDir": "", "Labels": {}}
    return {**config, "Volumes": {}, "OnBuild": [], **config_json(image.config)}


def history_json(image: Image, layer_bytes: Iterable[int], lineage: Sequence[Image]) -> list[dict[str, Any]]:
    """The newest row first. `lineage`: the image, what it was made on, and so on, as far as that is here."""
    sizes = iter(layer_bytes)
    rows: list[dict[str, Any]] = [{
        "Id": "<missing>",
        "Created": stamp_ns(entry.created) // SECOND_NS,
        "CreatedBy": entry.created_by,
        "Tags": None,
        "Size": 0 if entry.empty_layer else next(sizes, 0),
        "Comment": entry.comment,
    } for entry in image.history][::-1]
    for row, made in zip(rows, lineage, strict=False):
        row |= {"Id": made.id, "Tags": list(made.repo_tags) or None}
    return rows


def removal_json(removal: Removal) -> dict[str, str]:
    return {"Untagged": removal.untagged} if removal.untagged else {"Deleted": removal.deleted}


def shared_bytes(layers: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> dict[str, int]:
    """Image id → bytes of those of its layers that another image has too. `layers`: by their chain ids, lowest first.

    Pure.
    """
    uses = Counter(chain for mine in layers.values() for chain in mine)
    return {image_id: sum(sizes.get(chain, 0) for chain in mine if uses[chain] > 1)
            for image_id, mine in layers.items()}


def shared_sizes(images: Images) -> dict[str, int]:
    """As `shared_bytes`, of all that are here."""
    return shared_bytes({image.id: chain_ids(image.layers) for image in images.all()}, images.layer_sizes())
