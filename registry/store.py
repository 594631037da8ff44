"""What a registry holds: repositories with their tags, manifests and links to blobs. Blocking: called in threads.

Who relies on a blob touches it first (`hold`), under the shared lock; collection removes only what nobody has touched
for the time of grace, and looks under the exclusive lock. So a push beside a collection never loses a blob that it
was told is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from shoal.registry import files, manifests, names
from shoal.registry.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    TagInvalid,
)
from shoal.registry.layout import Layout
from shoal.registry.manifests import Manifest, Referrer
from shoal.registry.names import Digest, Repository, Tag

MOST_REFERRERS = 10_000


class Store:
    """One root. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        files.make_folders(self.layout.repositories)
        files.make_folders(self.layout.blobs)

    @contextlib.contextmanager
    def locked(self, exclusive: bool = False) -> Iterator[None]:
        """Shared by who takes hold of blobs or sets tags, exclusive for who sweeps or deletes. Not to be nested.

        On a read-only file system nobody can rely on what is there, as nobody can push: no lock is held."""
        with contextlib.ExitStack() as held:
            with _unless_read_only():
                file = held.enter_context(self.layout.lock.open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    # Blobs

    def blob(self, name: Repository, digest: Digest) -> tuple[Path, int]:
        """Where a blob of this repository lies, and its size. It is touched: who asks is told that it will stay."""
        if not self.layout.layer(name, digest).exists():
            raise BlobUnknown(f"blob unknown to repository {name}: {digest}")
        path = self.layout.blob(digest)
        with self.locked():
            try:
                with _unless_read_only():
                    os.utime(path)
                return path, path.stat().st_size
            except FileNotFoundError:
                raise BlobUnknown(f"blob unknown to repository {name}: {digest}") from None

    def mount(self, name: Repository, digest: Digest, source: Repository) -> None:
        """Let `name` have a blob of `source`. Raises BlobUnknown where `source` has none."""
        self.blob(source, digest)
        with self.locked():
            if not self.layout.blob(digest).exists():
                raise BlobUnknown(f"blob unknown to repository {source}: {digest}")
            files.write(self.layout.layer(name, digest), digest.encode())

    def add_blob(self, name: Repository, digest: Digest, data: Path) -> None:
        """Take a file whose content was verified and synced; it is gone from where it was."""
        with self.locked():
            os.utime(data)
            files.move(data, self.layout.blob(digest))
            files.write(self.layout.layer(name, digest), digest.encode())

    def delete_blob(self, name: Repository, digest: Digest) -> None:
        self.blob(name, digest)
        _remove(self.layout.layer(name, digest).parent)

    # Manifests

    def resolve(self, name: Repository, reference: str) -> Digest:
        """The digest of a manifest by tag or digest."""
        if names.is_digest(reference):
            digest = names.Digest(reference)
        else:
            found = files.read_link(self.layout.tag(name, _known_tag(reference)))
            if found is None or not names.is_digest(found):
                raise ManifestUnknown(f"manifest unknown: {name}:{reference}")
            digest = names.Digest(found)
        if not self.layout.revision(name, digest).exists():
            raise ManifestUnknown(f"manifest unknown: {name}@{digest}")
        return digest

    def manifest(self, name: Repository, reference: str) -> tuple[Digest, bytes]:
        digest = self.resolve(name, reference)
        try:
            return digest, self.layout.blob(digest).read_bytes()
        except FileNotFoundError:
            raise ManifestUnknown(f"manifest unknown: {name}@{digest}") from None

    def add_manifest(self, name: Repository, digest: Digest, content: bytes, manifest: Manifest,
                     tag: Tag | None) -> None:
        """Store and link it, and point `tag` at it. Raises ManifestBlobUnknown for the first thing that is missing."""
        self._hold(name, manifest)
        with self.locked():
            files.write(self.layout.blob(digest), content)
            if manifest.subject:
                files.write(self.layout.referrer(name, manifest.subject, digest), digest.encode())
            files.write(self.layout.revision(name, digest), digest.encode())
            if tag is not None:
                files.write(self.layout.tag_index(name, tag, digest), digest.encode())
                files.write(self.layout.tag(name, tag), digest.encode())

    def _hold(self, name: Repository, manifest: Manifest) -> None:
        """Touch everything that a manifest needs."""
        try:
            for each in manifest.blobs:
                self.blob(name, each)
            with self.locked():
                for each in manifest.manifests:
                    self.resolve(name, each)
                    os.utime(self.layout.blob(each))
        except (BlobUnknown, ManifestUnknown, FileNotFoundError) as error:
            raise ManifestBlobUnknown(str(error)) from error

    def delete_manifest(self, name: Repository, digest: Digest) -> None:
        """Remove it and the tags that point at it. What is pushed meanwhile comes before or after."""
        with self.locked(exclusive=True):
            self.drop_manifest(name, digest)

    def drop_manifest(self, name: Repository, digest: Digest) -> None:
        """The same, for who holds the exclusive lock."""
        self.resolve(name, digest)
        for tag in self.tags(name):
            if files.read_link(self.layout.tag(name, Tag(tag))) == digest:
                _remove(self.layout.tags(name) / tag)
        with contextlib.suppress(FileNotFoundError, ManifestInvalid):
            manifest = manifests.stored(self.layout.blob(digest).read_bytes())
            if manifest.subject:
                self.drop_referrer(name, manifest.subject, digest)
        _remove(self.layout.revision(name, digest).parent)

    def drop_referrer(self, name: Repository, subject: Digest, digest: Digest) -> None:
        """The link only, for who holds the exclusive lock."""
        _remove(self.layout.referrer(name, subject, digest).parent)
        for folder in (self.layout.referrers(name, subject) / names.algorithm(digest),
                       self.layout.referrers(name, subject)):
            with contextlib.suppress(OSError):  # there are others
                folder.rmdir()

    def delete_tag(self, name: Repository, tag: Tag) -> None:
        with self.locked(exclusive=True):
            if not self.layout.tag(name, tag).exists():
                raise ManifestUnknown(f"manifest unknown: {name}:{tag}")
            _remove(self.layout.tags(name) / tag)

    # Lists

    def tags(self, name: Repository) -> list[str]:
        if not self.layout.manifests(name).is_dir():
            raise NameUnknown(f"repository name not known to registry: {name}")
        found = (entry.name for entry in _entries(self.layout.tags(name)))
        return sorted(each for each in found if self.layout.tag(name, Tag(each)).exists())

    def catalog(self) -> list[Repository]:
        """Every repository to which a manifest was ever pushed."""
        return [name for name in self.repositories() if self.layout.manifests(name).is_dir()]

    def repositories(self) -> list[Repository]:
        """Also those to which only blobs were pushed, or are about to be, and folders above repositories."""
        top = self.layout.repositories
        return sorted(Repository(str(folder.relative_to(top))) for folder in self._folders(top))

    def _folders(self, folder: Path) -> Iterator[Path]:
        for entry in _entries(folder):
            if entry.is_dir() and not entry.name.startswith("_"):
                yield Path(entry.path)
                yield from self._folders(Path(entry.path))

    def revisions(self, name: Repository) -> Iterator[Digest]:
        return self._links(self.layout.manifests(name) / "revisions")

    def layers(self, name: Repository) -> Iterator[Digest]:
        return self._links(self.layout.repositories / name / "_layers")

    def referrer_links(self, name: Repository) -> Iterator[tuple[Digest, Digest]]:
        """Subject and manifest of each link, also where the manifest is no more."""
        top = self.layout.manifests(name) / "referrers"
        for algorithm in _entries(top):
            for entry in _entries(Path(algorithm.path)):
                if names.is_digest(subject := f"{algorithm.name}:{entry.name}"):
                    for digest in self._links(Path(entry.path)):
                        yield Digest(subject), digest

    def without_link(self, name: Repository) -> Iterator[Path]:
        """The folders of tags, manifests and blobs that who was killed in the middle left without their link."""
        for tag in _entries(self.layout.tags(name)):
            if not Path(tag.path, "current/link").exists():
                yield Path(tag.path)
        for top in (self.layout.manifests(name) / "revisions", self.layout.repositories / name / "_layers"):
            for algorithm in _entries(top):
                yield from (Path(entry.path) for entry in _entries(Path(algorithm.path))
                            if not Path(entry.path, "link").exists())

    def _links(self, folder: Path) -> Iterator[Digest]:
        """The digests below a folder of ALGORITHM/HEX/link."""
        for algorithm in _entries(folder):
            for entry in _entries(Path(algorithm.path)):
                digest = f"{algorithm.name}:{entry.name}"
                if names.is_digest(digest) and Path(entry.path, "link").exists():
                    yield Digest(digest)

    def referrers(self, name: Repository, subject: Digest) -> list[Referrer]:
        """The manifests whose subject this is: those that we linked, and those that older clients list by a tag."""
        wanted = dict.fromkeys(self._links(self.layout.referrers(name, subject)))
        with contextlib.suppress(ManifestUnknown, ManifestInvalid):
            _, content = self.manifest(name, subject.replace(":", "-"))
            wanted.update(dict.fromkeys(manifests.stored(content).manifests))
        found = []
        for digest in sorted(wanted)[:MOST_REFERRERS]:
            with contextlib.suppress(ManifestUnknown, ManifestInvalid):  # deleted since
                _, content = self.manifest(name, digest)
                manifest = manifests.stored(content)
                if manifest.subject == subject:
                    found.append(manifests.referrer(digest, len(content), manifest))
        return found


@contextlib.contextmanager
def _unless_read_only() -> Iterator[None]:
    """Pass over what fails because the file system is read-only."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def _known_tag(reference: str) -> Tag:
    """A reference that is no tag names nothing."""
    try:
        return names.tag(reference)
    except TagInvalid:
        raise ManifestUnknown(f"manifest unknown: {reference[:names.LONGEST_NAME]}") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    with contextlib.suppress(FileNotFoundError):
        files.sync_folder(folder.parent)
