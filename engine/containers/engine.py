"""`Engine`: the containers of one host. A thin facade: each concern lives in a module by its noun.

A reference (`ref`) is an id, a name (with or without its slash) or an unambiguous
prefix of an id. What a reference does not mean raises NotFound, "No such container: <ref>".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Protocol

from shoal.api.sandbox import EndpointRequest, Networking, Sandbox
from shoal.engine.containers.events import Events
from shoal.engine.containers.nouns import (
    Container,
    ContainerConfig,
    Created,
    Exec,
    ExecConfig,
    HostConfig,
    Limits,
    LogQuery,
    Pruned,
    RestartPolicy,
    Usage,
    WaitResult,
)
from shoal.engine.containers.volumes import Volumes
from shoal.engine.images.images import Images, ImageUser
from shoal.engine.storage.rootfs import RootFSStore

STDIN, STDOUT, STDERR = 0, 1, 2
"""The streams, numbered as the API's multiplexed frames number them."""


class Attachment(Protocol):
    """The stdio of a container or of an exec, in a client's hands."""

    tty: bool
    """Everything is one raw stream then (STDOUT)."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output and its stream; None at the end. One reader at a time."""

    async def write(self, data: bytes) -> None:
        """Give input; waits while the container is slow. Dropped where nobody reads it any more."""

    async def close_stdin(self) -> None:
        """There is no more input (half-close); output goes on."""

    async def detach(self) -> None:
        """Let go. To be called always, at the end."""


class Engine:
    """See the module. Methods are called from one event loop."""

    def __init__(
        self,
        *,
        data_root: Path,
        run_root: Path,
        images: Images,
        rootfs: RootFSStore,
        networking: Networking,
        cgroup_parent: str = "",
        runtime: str = "",
    ) -> None:
        """`runtime`: runc, crun or a path; empty: the first that works here."""
        self.volumes: Volumes
        self.events: Events
        raise NotImplementedError

    # --- the engine's own life ---

    async def open(self) -> None:
        """Find again what runs, take in what ended meanwhile, start what its restart policy wants. Before any other."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go; containers live on."""
        raise NotImplementedError

    @property
    def runtime(self) -> tuple[str, str]:
        """The OCI runtime's name and path."""
        raise NotImplementedError

    # --- reading ---

    def get(self, ref: str) -> Container:
        """As it is now. Raises NotFound, and InvalidArgument for an ambiguous prefix."""
        raise NotImplementedError

    def all(self) -> list[Container]:
        """Every container, the newest first. The caller filters."""
        raise NotImplementedError

    def sandbox(self, ref: str) -> Sandbox | None:
        """Its network sandbox, while it has one."""
        raise NotImplementedError

    def log_path(self, ref: str) -> Path:
        raise NotImplementedError

    async def written_bytes(self, ref: str) -> int:
        """Bytes that it wrote on top of its image."""
        raise NotImplementedError

    def image_users(self, image_id: str) -> Iterable[ImageUser]:
        """The containers made from an image (for `Images.users`)."""
        raise NotImplementedError

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """`changed` hears the id of each container whose record changed. Returns what ends that."""
        raise NotImplementedError

    # --- changing ---

    async def create(self, name: str, config: ContainerConfig, host: HostConfig) -> Created:
        """Make a container; an empty `name` gets one made up.

        Raises NotFound ("No such image: …"), Conflict (the name is in use), InvalidArgument.
        """
        raise NotImplementedError

    async def start(self, ref: str) -> None:
        """Start it. No error where it runs. Raises InvalidArgument where its program cannot be run (400), Conflict."""
        raise NotImplementedError

    async def stop(self, ref: str, timeout_s: int | None = None, signal: str = "") -> None:
        """Its stop signal, so long a wait (None: its own; negative: for ever), a kill. No error where it has stopped.

        Returns once it has stopped.
        """
        raise NotImplementedError

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str = "") -> None:
        raise NotImplementedError

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Raises Conflict where it does not run, InvalidArgument for an unknown signal."""
        raise NotImplementedError

    async def pause(self, ref: str) -> None:
        """Raises Conflict where it does not run or is paused already."""
        raise NotImplementedError

    async def unpause(self, ref: str) -> None:
        raise NotImplementedError

    async def rename(self, ref: str, name: str) -> None:
        raise NotImplementedError

    async def update(self, ref: str, limits: Limits, restart: RestartPolicy | None = None) -> list[str]:
        """Change limits (those that are not 0 or empty) and the restart policy. Returns warnings."""
        raise NotImplementedError

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """`force` kills it first; `volumes`: its anonymous volumes too. Raises Conflict where it runs."""
        raise NotImplementedError

    async def prune(self, selected: Callable[[Container], bool] = lambda container: True) -> Pruned:
        """Remove those that do not run (created, exited, dead) and are `selected`."""
        raise NotImplementedError

    def wait(self, ref: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """Conditions: not-running, next-exit, removed. Registered at the call; cancel it to stop waiting."""
        raise NotImplementedError

    # --- its networks ---

    async def connect(self, ref: str, endpoint: EndpointRequest) -> None:
        """Join one more network, at once or at its next start."""
        raise NotImplementedError

    async def disconnect(self, ref: str, network: str) -> None:
        raise NotImplementedError

    # --- its stdio ---

    def logs(self, ref: str, query: LogQuery) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, bytes) of its log: whole lines, their time before them where asked. Raises at the call."""
        raise NotImplementedError

    async def attach(
        self, ref: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False,
        stream: bool = True,
    ) -> Attachment:
        """Its stdio, from now on; of one that does not run yet, from its start on (nothing is lost).

        `logs`: what was written before comes first; without `stream` that is all.
        Raises Conflict where it is paused or restarting.
        """
        raise NotImplementedError

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Resize its terminal. Raises Conflict where it does not run."""
        raise NotImplementedError

    # --- exec ---

    async def exec_create(self, ref: str, config: ExecConfig) -> Exec:
        """Raises Conflict where the container does not run or is paused."""
        raise NotImplementedError

    async def exec_start(
        self, exec_id: str, *, detach: bool = False, console_size: tuple[int, int] = (0, 0)
    ) -> Attachment | None:
        """Start it; its stdio as `ExecConfig` attaches it (None where detached). Conflict where it ran already."""
        raise NotImplementedError

    def exec_inspect(self, exec_id: str) -> Exec:
        """Raises NotFound, "No such exec instance: <id>"."""
        raise NotImplementedError

    def execs(self, ref: str) -> list[Exec]:
        """Those of a container that have not been forgotten."""
        raise NotImplementedError

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        raise NotImplementedError

    # --- what it does just now ---

    async def top(self, ref: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
        """Titles and rows of `ps`, of its processes only. Raises Conflict where it does not run."""
        raise NotImplementedError

    async def usage(self, ref: str) -> Usage:
        """One sample of what it uses."""
        raise NotImplementedError
