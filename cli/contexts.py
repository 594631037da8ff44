"""Contexts: daemons by name, kept as files below ~/.shoal (or $SHOAL_CONFIG). No connection is made here.

    config.json                      {"current-context": NAME}
    contexts/NAME/context.json       {"host": URL, "description": TEXT, "skip-tls-verify": BOOL}
    contexts/NAME/tls/*.pem          ca.pem, cert.pem, key.pem
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.api.errors import ShoalError

DEFAULT = "default"
FILES = ("ca.pem", "cert.pem", "key.pem")
HOST_KINDS = ("unix:///", "tcp://", "ssh://")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,62}")


class ContextError(ShoalError):
    pass


@dataclass(frozen=True)
class Context:
    name: str
    host: str  # "": the daemon of this host
    description: str = ""
    skip_verify: bool = False
    certificates: Path | None = None  # the folder of its files; None: no TLS


class Contexts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls, environment: Mapping[str, str] = os.environ) -> Contexts:
        return cls(Path(environment.get("SHOAL_CONFIG") or Path("~/.shoal").expanduser()))

    def all(self) -> list[Context]:
        """By name, the default first."""
        folder = self._folder / "contexts"
        names = sorted(path.parent.name for path in folder.glob("*/context.json")) if folder.is_dir() else []
        return [self.get(name) for name in (DEFAULT, *names)]

    def get(self, name: str) -> Context:
        """Raises ContextError where there is none of that name, or its file cannot be read."""
        if name == DEFAULT:
            return Context(DEFAULT, "", "The daemon of this host")
        path = self._path(name)
        try:
            found = json.loads((path / "context.json").read_text())
            host, description = str(found["host"]), str(found.get("description", ""))
        except FileNotFoundError:
            raise ContextError(f"there is no context {name!r}: see shoal context ls") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ContextError(f"context {name!r} cannot be read: {error}") from error
        tls = path / "tls"
        return Context(name, host, description, bool(found.get("skip-tls-verify")), tls if tls.is_dir() else None)

    def create(self, context: Context, files: Mapping[str, Path]) -> None:
        """Keep it, with copies of `files` (names of FILES). Raises ContextError for one that is there or cannot be."""
        path = self._path(context.name)
        if path.exists() or context.name == DEFAULT:
            raise ContextError(f"context {context.name!r} exists already")
        if not context.host.startswith(HOST_KINDS):
            raise ContextError(f"{context.host!r} is no host: write unix:///PATH, tcp://HOST:PORT or ssh://HOST")
        if files and not context.host.startswith("tcp://"):
            raise ContextError("certificates are for tcp:// alone")
        fresh = path.with_name(f".{context.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700, parents=True)
            for name, source in files.items():
                (fresh / "tls").mkdir(mode=0o700, exist_ok=True)
                _write(fresh / "tls" / name, source.read_bytes())
            _write(fresh / "context.json", json.dumps({
                "host": context.host, "description": context.description,
                "skip-tls-verify": context.skip_verify}).encode())
            fresh.rename(path)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise ContextError(f"context {context.name!r} cannot be kept: {error}") from error

    def remove(self, name: str) -> None:
        """Raises ContextError where it is not there, or is the default."""
        if name == DEFAULT:
            raise ContextError("the default context cannot be removed")
        self.get(name)
        if self.current() == name:
            self.use(DEFAULT)
        shutil.rmtree(self._path(name))

    def current(self) -> str:
        """Raises ContextError where the file that says so cannot be read."""
        path = self._folder / "config.json"
        try:
            found: Any = json.loads(path.read_text())
            return str(found.get("current-context") or DEFAULT)
        except (FileNotFoundError, PermissionError):
            return DEFAULT  # a HOME that is another user's, as after setpriv, chooses nothing for this one
        except (OSError, ValueError, AttributeError) as error:
            raise ContextError(f"{path} cannot be read: {error}") from error

    def use(self, name: str) -> None:
        """From now on, for commands that name none. Raises ContextError where it is not there."""
        self.get(name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / ".config.json.new"
        fresh.unlink(missing_ok=True)
        _write(fresh, json.dumps({"current-context": name}).encode())
        fresh.replace(self._folder / "config.json")

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ContextError(f"{name!r} can be no context's name: letters, digits and ._+- can")
        return self._folder / "contexts" / name


def _write(path: Path, content: bytes) -> None:
    """A file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
