"""Every container of this host: in memory, and one record each on disk.

    <root>/<id>/container.json    replaced as a whole, before anybody hears of the change
    <root>/<id>/log               what the container wrote (see `logs`)

Invariant: names are unique; a name that is being taken is reserved before the first await.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.api.ids import is_container_name
from shoal.engine.containers.files import overwrite_record, read_record, write_record
from shoal.engine.containers.names import generate
from shoal.engine.containers.nouns import Container, State

log = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
Changed = Callable[[str], None]


class Table:
    """See the module."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}  # name → id, also of those being made
        self._watchers: list[Changed] = []
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        for place in root.iterdir():
            container = read_record(place / "container.json", Container)
            if container is None:
                if not (place / "container.bad").exists():  # a create or a removal that did not come to its end
                    shutil.rmtree(place, ignore_errors=True)
                continue
            self._containers[container.id] = container
            self._names[container.name] = container.id

    # --- reading ---

    def folder(self, container_id: str) -> Path:
        return self._root / container_id

    def get(self, container_id: str) -> Container:
        """By full id. Raises NotFound."""
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFound(f"No such container: {container_id}") from None

    def has(self, container_id: str) -> bool:
        return container_id in self._containers

    def all(self) -> list[Container]:
        """The newest first."""
        return sorted(self._containers.values(), key=lambda container: container.created_ns, reverse=True)

    def find(self, ref: str) -> Container:
        """By id, name or unambiguous prefix of an id. Raises NotFound, InvalidArgument."""
        if (found := self._containers.get(ref)) is not None:
            return found
        named = self._names.get(ref.removeprefix("/"))
        if named is not None and named in self._containers:
            return self._containers[named]
        matching = [container_id for container_id in self._containers if ref and container_id.startswith(ref)]
        if not matching:
            raise NotFound(f"No such container: {ref}")
        if len(matching) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
        return self._containers[matching[0]]

    # --- names ---

    def reserve(self, name: str, container_id: str) -> str:
        """Take a name for a container; an empty one is made up. Raises InvalidArgument, Conflict."""
        name = name.removeprefix("/")
        if not name:
            name = generate(self._names)
        elif not is_container_name(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        holder = self._names.setdefault(name, container_id)
        if holder != container_id:
            raise Conflict(f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                           "You have to remove (or rename) that container to be able to reuse that name.")
        return name

    def free(self, name: str) -> None:
        self._names.pop(name, None)

    # --- changing ---

    def add(self, container: Container) -> None:
        self.folder(container.id).mkdir(mode=0o710, exist_ok=True)
        self.put(container, durable=True)

    def put(self, container: Container, *, durable: bool = False) -> None:
        """Replace a container. `durable`: also against a power cut."""
        write_record(self.folder(container.id) / "container.json", container, durable=durable)
        self._containers[container.id] = container
        self.tell(container.id)

    def change(self, container_id: str, **changes: object) -> Container:
        """Replace some of a container's fields."""
        container = msgspec.structs.replace(self.get(container_id), **changes)
        self.put(container)
        return container

    def change_state(self, container_id: str, **changes: object) -> State:
        """Replace some of its state's fields: what has happened, which a full disk does not undo."""
        state: State = msgspec.structs.replace(self.get(container_id).state, **changes)
        try:
            self.change(container_id, state=state)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._put_in_place(msgspec.structs.replace(self.get(container_id), state=state))
        return state

    def _put_in_place(self, container: Container) -> None:
        try:
            overwrite_record(self.folder(container.id) / "container.json", container)
        except OSError as error:
            log.error("event=state-not-written container=%s error=%s", container.id, error)
        self._containers[container.id] = container
        self.tell(container.id)

    def rename(self, container_id: str, name: str) -> None:
        """Raises InvalidArgument, Conflict."""
        before = self.get(container_id)
        name = self.reserve(name, container_id)
        self.put(msgspec.structs.replace(before, name=name), durable=True)
        self.free(before.name)

    def drop(self, container_id: str) -> None:
        """Forget a container. The record goes first: what a crash leaves is swept at the next start."""
        container = self._containers.pop(container_id)
        self.free(container.name)
        (self.folder(container_id) / "container.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder(container_id), ignore_errors=True)
        self.tell(container_id)

    # --- watching ---

    def watch(self, changed: Changed) -> Callable[[], None]:
        """`changed` hears the id of each container that changed. Returns what ends that."""
        self._watchers.append(changed)

        def end() -> None:
            if changed in self._watchers:
                self._watchers.remove(changed)

        return end

    def tell(self, container_id: str) -> None:
        for changed in list(self._watchers):
            changed(container_id)
