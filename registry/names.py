"""The grammar of repositories, tags and digests. Pure. What does not match never becomes part of a path.

Source: the OCI distribution specification 1.1, "Pulling manifests".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NewType

from shoal.registry.errors import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

Repository = NewType("Repository", str)
Tag = NewType("Tag", str)
Digest = NewType("Digest", str)

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
LONGEST_NAME = 255


def repository(text: str) -> Repository:
    if len(text) > LONGEST_NAME or not _REPOSITORY.fullmatch(text):
        raise NameInvalid(f"invalid repository name: {text[:LONGEST_NAME]}")
    return Repository(text)


def tag(text: str) -> Tag:
    if not _TAG.fullmatch(text):
        raise TagInvalid(f"invalid tag: {text[:LONGEST_NAME]}")
    return Tag(text)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def digest(text: str) -> Digest:
    if not is_digest(text):
        raise DigestInvalid(f"invalid digest, or an algorithm other than sha256 and sha512: {text[:LONGEST_NAME]}")
    return Digest(text)


def algorithm(of: Digest) -> str:
    return of.partition(":")[0]


def hexadecimal(of: Digest) -> str:
    return of.partition(":")[2]


def hasher(of: Digest) -> _Hash:
    """A fresh hash of the digest's algorithm."""
    return hashlib.new(algorithm(of))


def digest_of(content: bytes, using: str = "sha256") -> Digest:
    return Digest(f"{using}:{hashlib.new(using, content).hexdigest()}")
