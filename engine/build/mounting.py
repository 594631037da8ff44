"""RUN --mount made real: what a container of a step is given beside its root."""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shoal.api.errors import InvalidArgument, NotFound
from shoal.engine.build.folders import CacheFolders
from shoal.engine.build.mounts import Mount
from shoal.engine.build.sources import inside
from shoal.engine.containers.nouns import MountRequest

RootOf = Callable[[str], Awaitable[Path]]
"""The root of a stage or an image by its name; "": the build's context."""


@asynccontextmanager
async def mounted(mounts: Sequence[Mount], *, root_of: RootOf, caches: CacheFolders, secrets: Mapping[str, bytes],
                  scratch: Path) -> AsyncIterator[tuple[MountRequest, ...]]:
    """What the container is to be made with. `scratch`: a folder of the step's own. Raises ShoalError."""
    async with AsyncExitStack() as held:
        made = []
        for number, mount in enumerate(mounts):
            if mount.kind == "tmpfs":
                made.append(MountRequest(type="tmpfs", target=mount.target, tmpfs_size_bytes=mount.size_bytes,
                                         options=("exec",)))
            elif mount.kind == "cache":
                if mount.source_of:
                    raise InvalidArgument("RUN --mount=type=cache,from=… is not supported")
                place = await held.enter_async_context(caches.use(mount))
                made.append(MountRequest(source=str(place), target=mount.target, read_only=mount.read_only))
            elif mount.kind == "secret":
                if (request := await asyncio.to_thread(_secret, mount, secrets, scratch / str(number))) is not None:
                    made.append(request)
            else:
                root = await root_of(mount.source_of)
                made.append(await asyncio.to_thread(_bind, mount, str(root), scratch / str(number)))
        yield tuple(made)


def _secret(mount: Mount, secrets: Mapping[str, bytes], place: Path) -> MountRequest | None:
    if mount.env is not None:
        raise InvalidArgument("RUN --mount=type=secret,env=… is not supported: read the secret from its file")
    if mount.id not in secrets:
        if mount.required:
            raise NotFound(f"secret {mount.id}: not found")
        return None
    place.touch(mode=0o600)
    place.write_bytes(secrets[mount.id])
    place.chmod(mount.mode if mount.mode is not None else 0o400)
    os.chown(place, mount.uid, mount.gid)
    return MountRequest(source=str(place), target=mount.target, read_only=True)


def _bind(mount: Mount, root: str, copy: Path) -> MountRequest:
    source = inside(root, posixpath.normpath("/" + mount.source))
    if not os.path.lexists(source):
        raise NotFound(f"stat {mount.source or '/'}: file does not exist")
    if not mount.read_only and not mount.source_of:  # what is written is thrown away, and is not the context's
        if Path(source).is_dir():
            try:
                shutil.copytree(source, copy, symlinks=True)
            except RecursionError as error:
                raise InvalidArgument(f"{mount.source or '/'} is nested too deep to be mounted for writing") from error
        else:
            shutil.copy2(source, copy)
        source = str(copy)
    return MountRequest(source=source, target=mount.target, read_only=mount.read_only)
