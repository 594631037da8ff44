"""What the cases push: images, indexes and artifacts, each with everything that it needs."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.integration.registry.pushing import CONFIG, LAYER, OCI_INDEX, OCI_MANIFEST, digest

GZIPPED = "application/vnd.oci.image.layer.v1.tar+gzip"
NOT_DISTRIBUTED = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
EXAMPLES = ("application/vnd.example.one", "application/vnd.example.two")


@dataclass
class Content:
    """Blobs, then manifests by digest in the order in which they are pushed; tags; who refers to which subject."""

    using: str = "sha256"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def blob(self, content: bytes, kind: str, **more: object) -> dict[str, object]:
        found = digest(content, self.using)
        self.blobs[found] = content
        return {"mediaType": kind, "digest": found, "size": len(content), **more}

    def manifest(self, body: dict[str, object], tag: str = "") -> dict[str, object]:
        """Its descriptor. A subject gets it as referrer."""
        content = json.dumps(body).encode()
        found = digest(content, self.using)
        self.manifests[found] = content
        if tag:
            self.tags[tag] = found
        descriptor = {"mediaType": body["mediaType"], "digest": found, "size": len(content)}
        if subject := body.get("subject"):
            kind = body.get("artifactType") or body["config"]["mediaType"]
            self.referrers.setdefault(subject["digest"], []).append(
                {**descriptor, "artifactType": kind,
                 **({"annotations": body["annotations"]} if "annotations" in body else {})})
        return descriptor

    def image(self, tag: str = "", layers: int = 2, layer_kind: str = GZIPPED, config_kind: str = CONFIG,
              config: bytes | None = None, inline: bool = False, **more: object) -> dict[str, object]:
        def described(content: bytes, kind: str) -> dict[str, object]:
            return self.blob(content, kind, **({"data": base64.b64encode(content).decode()} if inline else {}))

        return self.manifest({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(config or os.urandom(20), config_kind),
            "layers": [described(os.urandom(100), layer_kind) for _ in range(layers)], **more}, tag)

    def artifact(self, kind: str, tag: str = "", layers: int = 1, **more: object) -> dict[str, object]:
        return self.image(tag, layers, kind, EMPTY, b"{}", artifactType=kind, **more)

    def index(self, members: list[dict[str, object]], tag: str = "", **more: object) -> dict[str, object]:
        return self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members, **more}, tag)


def platforms(content: Content) -> list[dict[str, object]]:
    return [{**content.image(), "platform": {"os": "linux", "architecture": each}} for each in ("amd64", "arm64")]


def large(content: Content) -> None:
    """Of not quite 4 MB, which every registry takes."""
    content.image("large", annotations={f"annotation-{number}": "A" * 10_000 for number in range(390)})


def nested(content: Content) -> None:
    content.index([content.index(platforms(content)), content.index(platforms(content))], "nested")


def with_referrers(content: Content) -> None:
    subject = content.image("image")
    content.image(subject=subject)
    for number, kind in enumerate(EXAMPLES):
        content.artifact(kind, f"artifact-{number}", subject=subject, annotations={"number": str(number)})


def index_with_referrers(content: Content) -> None:
    subject = content.index(platforms(content), "index")
    content.index([content.artifact(EXAMPLES[0])], "referrer", artifactType=EXAMPLES[0], subject=subject,
                  annotations={"hello": "there"})


def missing_subject(content: Content) -> None:
    content.artifact(EXAMPLES[0], "artifact", annotations={"hello": "there"},
                     subject={"mediaType": OCI_MANIFEST, "digest": digest(os.urandom(9)), "size": 123})


def empty_layer(content: Content) -> None:
    empty = content.blob(b"{}", EMPTY)
    content.manifest({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": EXAMPLES[0], "config": empty,
                      "layers": [empty]}, "artifact")


def not_distributed(content: Content) -> None:
    """With a layer that lies elsewhere."""
    found = digest(os.urandom(9))
    elsewhere = {"mediaType": NOT_DISTRIBUTED, "digest": found, "size": 123456,
                 "urls": [f"https://store.example.com/{found}"]}
    content.manifest({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": content.blob(os.urandom(20), CONFIG),
                      "layers": [elsewhere, content.blob(os.urandom(99), GZIPPED)]}, "away")


KINDS: dict[str, Callable[[Content], object]] = {
    "image": lambda content: content.image("image"),
    "image, not compressed": lambda content: content.image("image", layer_kind=LAYER),
    "image without layers": lambda content: content.image("image", 0),
    "large manifest": large,
    "index": lambda content: content.index(platforms(content), "index"),
    "index of indexes": nested,
    "empty index": lambda content: content.index([], "index"),
    "artifact": lambda content: content.artifact(EXAMPLES[0], "artifact"),
    "artifact of an empty layer": empty_layer,
    "index of artifacts": lambda content: content.index(
        [content.artifact(EXAMPLES[0]), content.artifact(EXAMPLES[0])], "artifacts", artifactType=EXAMPLES[0]),
    "referrers": with_referrers,
    "index with a referrer": index_with_referrers,
    "referrer of what is not there": missing_subject,
    "data in descriptors": lambda content: content.image("image", inline=True),
    "layers that lie elsewhere": not_distributed,
    "fields that nobody knows": lambda content: content.index(
        [content.image(**{"org.example": [1, {"a": None}]})], "index", **{"org.example": "other"}),
}


def make(kind: str, using: str = "sha256") -> Content:
    content = Content(using)
    KINDS[kind](content)
    if using != "sha256":
        content.tags.clear()  # a manifest that is pushed by a tag has a digest of sha256
    return content
