"""What a removal takes away of an image, and what stands against it, in Docker's words. Pure.

Source: moby, daemon/images/image_delete.go.
"""

from __future__ import annotations

import msgspec

from shoal.api.errors import Conflict


class ImageUser(msgspec.Struct, frozen=True):
    """A container that was made from an image."""

    container_id: str
    running: bool


class Removal(msgspec.Struct, frozen=True):
    """One line of what a removal did. `layer`: what was deleted is one, by its chain id, and no image."""

    untagged: str = ""
    deleted: str = ""
    layer: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image stands: what it is called, complete, and who needs it."""

    image_id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()  # with their repositories
    has_children: bool = False
    users: tuple[ImageUser, ...] = ()

    @property
    def is_called_one_thing(self) -> bool:
        """At most one tag, and digests of its repository alone; False without any."""
        if len(self.tags) + len(self.digests) <= 1:
            return bool(self.tags or self.digests)
        repositories = {digest.partition("@")[0] for digest in self.digests}
        return len(self.tags) <= 1 and len(repositories) == 1 and all(
            tag.rpartition(":")[0] in repositories for tag in self.tags)


class Plan(msgspec.Struct, frozen=True):
    """The names to take away, and whether the image goes with them."""

    names: tuple[str, ...]
    image: bool


def plan_removal(standing: Standing, text: str, name: str | None, *, force: bool = False) -> Plan:
    """What the removal of `text` does: `name` is what that is in full, None where it is an id.

    Raises Conflict.
    """
    if name is None:
        refuse_removal(standing, force=force)
        return Plan((*standing.tags, *standing.digests), image=True)
    if not force and standing.is_called_one_thing and standing.users:
        raise Conflict(
            f'conflict: unable to remove repository reference "{text}" (must force) - container '
            f"{standing.users[0].container_id[:12]} is using its referenced image {short(standing.image_id)}"
        )
    gone = [name]
    repository = name.rpartition(":")[0]
    if "@" not in name and not any(tag != name and tag.rpartition(":")[0] == repository for tag in standing.tags):
        gone += [digest for digest in standing.digests if digest.partition("@")[0] == repository]
    bare = msgspec.structs.replace(standing, tags=tuple(tag for tag in standing.tags if tag not in gone),
                                   digests=tuple(one for one in standing.digests if one not in gone))
    return Plan(tuple(gone), image=not (bare.tags or bare.digests) and _refusal(bare, force=force) is None)


def refuse_removal(standing: Standing, *, force: bool) -> None:
    """Raises Conflict where the image cannot go: by its id, or as one that nothing names."""
    if message := _refusal(standing, force=force):
        raise Conflict(f"conflict: unable to delete {short(standing.image_id)} ({message}")


def _refusal(standing: Standing, *, force: bool) -> str | None:
    """What cannot be forced stands first."""
    if standing.has_children:
        return "cannot be forced) - image has dependent child images"
    for user in standing.users:
        if user.running:
            return f"cannot be forced) - image is being used by running container {user.container_id[:12]}"
    if force:
        return None
    if (standing.tags or standing.digests) and not standing.is_called_one_thing:
        return "must be forced) - image is referenced in multiple repositories"
    for user in standing.users:
        return f"must be forced) - image is being used by stopped container {user.container_id[:12]}"
    return None


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]

