"""Where things lie below the root, as Docker's registry lays them out. Pure: paths only.

    docker/registry/v2/blobs/sha256/aa/<hex>/data
    docker/registry/v2/repositories/<name>/_layers/sha256/<hex>/link
                                          /_manifests/revisions/sha256/<hex>/link
                                          /_manifests/tags/<tag>/current/link
                                          /_manifests/tags/<tag>/index/sha256/<hex>/link
                                          /_manifests/referrers/sha256/<subject>/sha256/<hex>/link   (ours)
                                          /_uploads/<id>/data, startedat

Source: docker/distribution, registry/storage/paths.go. It does not look into `referrers`.
"""

from __future__ import annotations

from pathlib import Path

from shoal.registry.names import Digest, Repository, Tag, algorithm, hexadecimal


class Layout:
    """The paths of one root."""

    def __init__(self, root: Path) -> None:
        self.top = root / "docker/registry/v2"
        self.blobs = self.top / "blobs"
        self.repositories = self.top / "repositories"
        self.lock = root / ".shoal-sweep.lock"

    def blob(self, digest: Digest) -> Path:
        value = hexadecimal(digest)
        return self.blobs / algorithm(digest) / value[:2] / value / "data"

    def layer(self, name: Repository, digest: Digest) -> Path:
        return self.repositories / name / "_layers" / _folder(digest) / "link"

    def manifests(self, name: Repository) -> Path:
        return self.repositories / name / "_manifests"

    def revision(self, name: Repository, digest: Digest) -> Path:
        return self.manifests(name) / "revisions" / _folder(digest) / "link"

    def tags(self, name: Repository) -> Path:
        return self.manifests(name) / "tags"

    def tag(self, name: Repository, tag: Tag) -> Path:
        return self.tags(name) / tag / "current/link"

    def tag_index(self, name: Repository, tag: Tag, digest: Digest) -> Path:
        return self.tags(name) / tag / "index" / _folder(digest) / "link"

    def referrers(self, name: Repository, subject: Digest) -> Path:
        return self.manifests(name) / "referrers" / _folder(subject)

    def referrer(self, name: Repository, subject: Digest, digest: Digest) -> Path:
        return self.referrers(name, subject) / _folder(digest) / "link"

    def uploads(self, name: Repository) -> Path:
        return self.repositories / name / "_uploads"


def _folder(digest: Digest) -> str:
    return f"{algorithm(digest)}/{hexadecimal(digest)}"
