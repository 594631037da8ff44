"""What a manager keeps on its host: who it is, its key and certificate, its lock, its part of Raft's log.

    <data>/manager.lock            held while the process runs
    <data>/swarm/identity.json     written last when a swarm is made: without it there is none
    <data>/swarm/node.key node.crt ca.crt
    <data>/swarm/raft/<join>/      journal and snapshots of one join

A join has a name of its own: the identity's `raft_id` (fresh whenever the host joins or
is promoted) and a nonce made together with the folder. So whoever wipes a log wipes the
name with it, and no name ever speaks for two logs: that would break Raft's safety.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from pathlib import Path

import msgspec

from shoal.api.errors import Conflict, ShoalError
from shoal.api.membership import Identity
from shoal.manager.store.raft.recovery import JOURNAL_NAME

IDENTITY, KEY, CERTIFICATE, ROOT = "identity.json", "node.key", "node.crt", "ca.crt"
LOCK = "manager.lock"
LOCK_WAIT_S = 2.0
"""A process that is just ending gives its lock free within this."""


class HostFolder:
    """The files under one data root."""

    def __init__(self, data_root: Path) -> None:
        self.data_root = data_root
        self.folder = data_root / "swarm"
        self.raft = self.folder / "raft"

    def lock(self, wait_s: float = LOCK_WAIT_S) -> int:
        """Take the lock; it is held until the process ends. Raises Conflict naming the holder."""
        self.data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(self.data_root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                    os.close(descriptor)
                    raise Conflict(f"{self.data_root} is in use by another manager process (pid {holder}): "
                                   "stop it first") from None
                time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    # --- identity and certificate ---

    def identity(self) -> Identity | None:
        """Who this host is; None where it is in no swarm. Raises ShoalError where the file cannot be used."""
        try:
            return msgspec.json.decode((self.folder / IDENTITY).read_bytes(), type=Identity)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ShoalError(f"{self.folder / IDENTITY} cannot be used: {error}") from error

    def save_identity(self, identity: Identity) -> None:
        self._replace(IDENTITY, msgspec.json.format(msgspec.json.encode(identity), indent=2))

    def save_certificate(self, key_pem: str, certificate_pem: str, root_ca_pem: str) -> None:
        """The key before the certificate that belongs to it: a crash between the two is seen."""
        self._replace(ROOT, root_ca_pem.encode())
        self._replace(KEY, key_pem.encode())
        self._replace(CERTIFICATE, certificate_pem.encode())

    def _replace(self, name: str, data: bytes) -> None:
        """Durably the old file or the new one, never a part. Mode 0600."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.manager"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # --- Raft's log ---

    def found_join(self, raft_id: str) -> str | None:
        """The name of the join whose log is here; None where there is none that this identity can speak for."""
        found = [path for path in self._joins() if path.name.startswith(f"{raft_id}-")]
        with_log = [path for path in found if _size(path / JOURNAL_NAME) > 0]
        if len(with_log) > 1:
            raise ShoalError(f"{self.raft} holds the logs of several joins: remove this manager from the swarm, "
                             f"delete {self.raft} and join again")
        return with_log[0].name if with_log else None

    def new_join(self, raft_id: str) -> str:
        """A fresh name and an empty folder for it; whatever was there before is removed."""
        for path in self._joins():
            shutil.rmtree(path)
        name = f"{raft_id}-{secrets.token_hex(4)}"
        (self.raft / name).mkdir(mode=0o700, parents=True)
        return name

    def _joins(self) -> list[Path]:
        return [path for path in self.raft.iterdir() if path.is_dir()] if self.raft.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
