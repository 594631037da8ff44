"""Garbage collection: what may go is decided here. Pure: `collector` reads, and carries it out.

A blob goes where no manifest of any repository refers to it and nobody touched it for the time of grace. Whoever
relies on a blob touches it first (see `store`), so one that a push counts on is always younger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shoal.registry.manifests import Manifest
from shoal.registry.names import Digest, Repository


class Held(msgspec.Struct, frozen=True):
    """A manifest of a repository. `age_s`: since it was last pushed or relied on."""

    manifest: Manifest
    age_s: float


def untagged(held: Mapping[Digest, Held], tagged: Iterable[Digest], grace_s: float) -> set[Digest]:
    """Those manifests of one repository that no tag leads to, nor any younger than `grace_s`.

    A tag leads to its manifest, on to an index's manifests, and to what has one of these as its subject."""
    referrers: dict[Digest, list[Digest]] = {}
    for digest, each in held.items():
        if each.manifest.subject:
            referrers.setdefault(each.manifest.subject, []).append(digest)
    reached: set[Digest] = set()
    todo = [*tagged, *(digest for digest, each in held.items() if each.age_s < grace_s)]
    while todo:
        digest = todo.pop()
        if digest in held and digest not in reached:
            reached.add(digest)
            todo += [*held[digest].manifest.manifests, *referrers.get(digest, ())]
    return set(held) - reached


def marked(repositories: Mapping[Repository, Mapping[Digest, Manifest]]) -> set[Digest]:
    """Every blob that some manifest needs, the manifests themselves among them."""
    found: set[Digest] = set()
    for held in repositories.values():
        for digest, manifest in held.items():
            found.add(digest)
            found.update(manifest.blobs)
            found.update(manifest.manifests)
    return found


LEAST_GRACE_S = 1.0
"""The kernel's time of a touch is some milliseconds behind the clock."""


def may_go(age_s: float, grace_s: float, since_mark_s: float) -> bool:
    """Whether a blob that was not marked was left alone since before the marking, by at least the time of grace."""
    return age_s >= max(grace_s, LEAST_GRACE_S) + since_mark_s
