"""References to images: how they are written, what they mean, how they are shown. Pure.

`busybox` means `docker.io/library/busybox:latest` and is shown as `busybox:latest`.
Source of the grammar: distribution/reference, as Docker documents it.
"""

from __future__ import annotations

import re

import msgspec

from shoal.api.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"

_DOMAIN = re.compile(
    r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z"
)
_PATH = re.compile(r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"^[0-9a-f]+\Z")
_FULL_HEX = re.compile(r"^[0-9a-f]{64}\Z")
MAX_NAME_LENGTH = 255


class Reference(msgspec.Struct, frozen=True):
    """`domain/path[:tag][@digest]`, with nothing left out."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository, complete."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix(OFFICIAL) if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """All of it as people write it."""
        return f"{self.familiar_name}{':' if self.tag else ''}{self.tag}" + (
            f"@{self.digest}" if self.digest else ""
        )

    def __str__(self) -> str:
        return f"{self.name}{':' if self.tag else ''}{self.tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """What `text` names, with Docker's defaults for domain and (where there is no digest) tag.

    Raises InvalidArgument with Docker's message, "invalid reference format".
    """
    if _FULL_HEX.match(text):
        raise InvalidArgument(
            f"invalid reference format: invalid repository name ({text}), "
            "cannot specify 64-byte hexadecimal strings"
        )
    rest, _, digest = text.partition("@")
    if (digest and not _DIGEST.match(digest)) or text.endswith("@"):
        raise InvalidArgument("invalid reference format")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.match(tag):
        raise InvalidArgument("invalid reference format")
    domain, path = _split_domain(head)
    if path.lower() != path:
        raise InvalidArgument("invalid reference format: repository name must be lowercase")
    if not _PATH.match(path) or not _DOMAIN.match(domain):
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > MAX_NAME_LENGTH:
        raise InvalidArgument("repository name must not be more than 255 characters")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(domain, path, tag, digest)


def names_repository(text: str) -> bool:
    """Whether `text` names a repository alone, with neither tag nor digest."""
    return "@" not in text and ":" not in text.rpartition("/")[2]


def as_id_prefix(text: str) -> str | None:
    """The hexadecimal prefix of an image id that `text` may be ("sha256:" taken off), or None."""
    digits = text.removeprefix("sha256:")
    return digits if _HEX.match(digits) and len(digits) <= 64 else None


def is_digest(text: str) -> bool:
    return bool(_DIGEST.match(text))


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path
