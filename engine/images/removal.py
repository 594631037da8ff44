"""What stands against the removal of an image, in Docker's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal.api.errors import Conflict


class ImageUser(msgspec.Struct, frozen=True):
    """A container that was made from an image."""

    container_id: str
    running: bool


class Removal(msgspec.Struct, frozen=True):
    """One line of what a removal did."""

    untagged: str = ""
    deleted: str = ""


def refuse_used_name(image_id: str, name: str, users: Iterable[ImageUser]) -> None:
    """Raises Conflict where a container uses the image that would lose its last name."""
    for user in users:
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (must force) - container '
            f"{user.container_id[:12]} is using its referenced image {short(image_id)}"
        )


def refuse_used(image_id: str, users: Iterable[ImageUser], *, force: bool) -> None:
    """Raises Conflict where a container uses the image; a running one also against `force`."""
    for user in users:
        if user.running:
            raise Conflict(
                f"conflict: unable to delete {short(image_id)} (cannot be forced) - "
                f"image is being used by running container {user.container_id[:12]}"
            )
        if not force:
            raise Conflict(
                f"conflict: unable to delete {short(image_id)} (must be forced) - "
                f"image is being used by stopped container {user.container_id[:12]}"
            )


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
