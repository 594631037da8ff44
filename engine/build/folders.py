"""What RUN --mount=type=cache keeps between builds: a folder for each id."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shoal.engine.build.garbage import FOLDER, Record
from shoal.engine.build.mounts import Mount
from shoal.engine.build.uses import Uses
from shoal.engine.storage.measure import tree_bytes
from shoal.engine.storage.trees import remove_tree


class CacheFolders:
    """A locked one is one step's at a time. One that is in use is not removed."""

    def __init__(self, root: Path, uses: Uses) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._uses = uses
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def use(self, mount: Mount) -> AsyncIterator[Path]:
        name = hashlib.sha256(mount.id.encode()).hexdigest()[:32]
        async with AsyncExitStack() as held:
            self._users[name] = self._users.get(name, 0) + 1
            held.callback(self._let_go, name)
            if mount.sharing != "shared":
                await held.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            place = self._root / name
            if not place.exists():
                place.mkdir(mode=0o755)
                place.chmod(mount.mode if mount.mode is not None else 0o755)
                os.chown(place, mount.uid, mount.gid)
            self._uses.mark([name], time.time())
            self._uses.name(name, mount.id)
            yield place

    def _let_go(self, name: str) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]
            self._locks.pop(name, None)

    def records(self) -> list[Record]:
        """Blocking: it measures them."""
        return [self._record(place) for place in self._root.iterdir()]

    def _record(self, place: Path) -> Record:
        use = self._uses.of(place.name, place.stat().st_mtime)
        return Record(id=place.name, kind=FOLDER, description=f"cached mount {use.name} from RUN --mount=type=cache",
                      bytes=tree_bytes(place), in_use=place.name in self._users, created=use.created,
                      last_used=use.last, uses=use.count)

    async def remove(self, name: str) -> bool:
        """Whether it is gone: not where a step has taken it meanwhile."""
        if name in self._users:
            return False
        doomed = self._root.parent / "work" / f"gone-{name}"  # nobody finds it there any more; the start clears that
        (self._root / name).rename(doomed)
        await asyncio.to_thread(remove_tree, doomed, ignore_errors=True)
        return True
