"""Carries a garbage collection out: mark, then sweep blob by blob under the exclusive lock."""

from __future__ import annotations

import shutil
import time

import msgspec

from shoal.registry import collection, files, manifests, names
from shoal.registry.collection import Held
from shoal.registry.errors import ManifestInvalid
from shoal.registry.manifests import Manifest
from shoal.registry.names import Digest, Repository
from shoal.registry.store import Store

DEFAULT_GRACE_S = 3600.0


class Collected(msgspec.Struct, frozen=True):
    """What went, or would go."""

    manifests: list[str] = []
    blobs: list[str] = []
    bytes: int = 0


def collect(store: Store, grace_s: float = DEFAULT_GRACE_S, *, untagged: bool = False, dry: bool = False) -> Collected:
    """Remove what nothing needs. `untagged`: also manifests that no tag leads to. `dry`: only say so."""
    begin = time.time()
    kept, gone = {}, []
    for name in store.catalog():
        held = _held(store, name, begin)
        drop = collection.untagged(held, _tagged(store, name), grace_s) if untagged else set()
        dropped = {digest for digest in drop if _drop(store, name, digest, begin, grace_s, dry)}
        kept[name] = {digest: each.manifest for digest, each in held.items() if digest not in dropped}
        gone += [f"{name}@{digest}" for digest in sorted(dropped)]
    marked = collection.marked(kept)
    swept: list[str] = []
    freed = 0
    for digest in _blobs(store):
        if digest not in marked:
            size = _sweep(store, digest, begin, grace_s, dry)
            swept += [digest] if size is not None else []
            freed += size or 0
    if not dry:
        _drop_links(store)
    return Collected(gone, swept, freed)


def _held(store: Store, name: Repository, now: float) -> dict[Digest, Held]:
    """A manifest that cannot be read stops the collection: what it refers to is not known."""
    held = {}
    for digest in store.revisions(name):
        path = store.layout.blob(digest)
        try:
            held[digest] = Held(manifests.stored(path.read_bytes()), now - path.stat().st_mtime)
        except FileNotFoundError:
            held[digest] = Held(Manifest(""), float("inf"))
        except ManifestInvalid as error:
            raise ManifestInvalid(f"{name}@{digest}: {error}; nothing more was collected") from error
    return held


def _tagged(store: Store, name: Repository) -> list[Digest]:
    found = (files.read_link(store.layout.tag(name, names.Tag(tag))) for tag in store.tags(name))
    return [names.Digest(each) for each in found if each and names.is_digest(each)]


def _drop(store: Store, name: Repository, digest: Digest, begin: float, grace_s: float, dry: bool) -> bool:
    """Remove a manifest if no push took hold of it meanwhile. Whether it goes."""
    with store.locked(exclusive=True):
        try:
            touched = store.layout.blob(digest).stat().st_mtime
        except FileNotFoundError:
            touched = 0.0
        now = time.time()
        goes = collection.may_go(now - touched, grace_s, max(now - begin, 0.0))
        if goes and not dry:
            store.drop_manifest(name, digest)
        return goes


def _blobs(store: Store) -> list[Digest]:
    """Also those of which only the folder is left: a collection was killed in the middle."""
    found = (f"{path.parents[1].name}:{path.name}" for path in store.layout.blobs.glob("*/*/*"))
    return [names.Digest(each) for each in found if names.is_digest(each)]


def _sweep(store: Store, digest: Digest, begin: float, grace_s: float, dry: bool) -> int | None:
    """Remove one blob if nobody took hold of it meanwhile. Its size; None where it stays."""
    path = store.layout.blob(digest)
    with store.locked(exclusive=True):
        try:
            found = path.stat()
        except FileNotFoundError:
            if not dry:
                shutil.rmtree(path.parent, ignore_errors=True)
            return None
        now = time.time()
        if not collection.may_go(now - found.st_mtime, grace_s, max(now - begin, 0.0)):
            return None
        if not dry:
            shutil.rmtree(path.parent)
        return found.st_size


def _drop_links(store: Store) -> None:
    """Links of repositories to blobs and to referrers that are no more, and folders whose link is gone."""
    for name in store.repositories():
        for digest in list(store.layers(name)):
            with store.locked(exclusive=True):
                if not store.layout.blob(digest).exists():
                    shutil.rmtree(store.layout.layer(name, digest).parent, ignore_errors=True)
        for subject, digest in list(store.referrer_links(name)):
            with store.locked(exclusive=True):
                if not store.layout.revision(name, digest).exists():
                    store.drop_referrer(name, subject, digest)
        with store.locked(exclusive=True):
            for folder in list(store.without_link(name)):
                shutil.rmtree(folder, ignore_errors=True)
