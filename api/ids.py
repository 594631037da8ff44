"""Ids and names as Docker has them, and how a reference to one is resolved.

Only the proposer of a change mints ids; whoever applies it never does.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from shoal.api.errors import InvalidArgument, NotFound

SWARM_ID_LENGTH = 25
"""Swarm objects have ids of 25 characters, base 36."""

CONTAINER_ID_LENGTH = 64
"""Containers, images and networks have ids of 64 hexadecimal digits."""

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_OBJECT_NAME = re.compile(r"^[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?$")
_CONTAINER_NAME = re.compile(r"^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$")


def base36(number: int, width: int) -> str:
    """`number` in base 36, zero-padded to `width` characters."""
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_BASE36[digit])
    return "".join(reversed(digits)).rjust(width, "0")


def new_swarm_id() -> str:
    """A fresh id of a swarm object."""
    return base36(secrets.randbits(128), SWARM_ID_LENGTH)[-SWARM_ID_LENGTH:]


def new_container_id() -> str:
    """A fresh 64-digit id."""
    return secrets.token_hex(CONTAINER_ID_LENGTH // 2)


def is_object_name(name: str) -> bool:
    """Whether `name` may name a service, network, secret or config."""
    return len(name) <= 63 and bool(_OBJECT_NAME.match(name))


def is_container_name(name: str) -> bool:
    """Whether `name` may name a container."""
    return bool(_CONTAINER_NAME.match(name))


def resolve(reference: str, kind: str, named: Iterable[tuple[str, str]]) -> str:
    """The id that `reference` means among `(id, name)` pairs.

    A full id wins, then a full name, then an unambiguous prefix of an id.
    Raises NotFound where nothing matches, InvalidArgument where several do.
    """
    pairs = list(named)
    if any(object_id == reference for object_id, _ in pairs):
        return reference
    by_name = [object_id for object_id, name in pairs if name == reference]
    by_prefix = [object_id for object_id, _ in pairs if reference and object_id.startswith(reference)]
    candidates = by_name or by_prefix
    if not candidates:
        raise NotFound(f"{kind} {reference} not found")
    if len(candidates) > 1:
        raise InvalidArgument(f"{kind} {reference} is ambiguous ({len(candidates)} matches found)")
    return candidates[0]
