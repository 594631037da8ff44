"""Where the plugins of this host are: Docker's folders, and what is written in the files there.

    <name>.sock      a socket that the plugin serves
    <name>.spec      its address, as text: unix:///path, tcp://host:port, http(s)://host:port
    <name>.json      {"Name", "Addr", "TLSConfig": {"InsecureSkipVerify", "CAFile", "CertFile", "KeyFile"}}

Each may stand in a folder of its name, too. Sockets come first. Source: moby, pkg/plugins/discovery.go.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from shoal.api.errors import ShoalError

FOLDERS = ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")
KINDS = (".sock", ".spec", ".json")
MAX_FILE_BYTES = 64 << 10
MAX_PLUGINS = 256

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


class TLS(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to trust and what to show, as paths; nothing to trust: anybody."""

    insecure_skip_verify: bool = msgspec.field(default=False, name="InsecureSkipVerify")
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = msgspec.field(default="", name="CertFile")
    key_file: str = msgspec.field(default="", name="KeyFile")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where one plugin answers: at a socket (`path`), or at `host` (with its port)."""

    path: str = ""
    host: str = ""
    tls: TLS | None = None


class _File(msgspec.Struct):
    addr: str = msgspec.field(default="", name="Addr")
    tls: TLS | None = msgspec.field(default=None, name="TLSConfig")


# --- what is written: pure ---


def parse_address(address: str, tls: TLS | None = None) -> Endpoint:
    """Raises ValueError. TLS is spoken to https alone; a path behind a host means nothing, as to Docker."""
    parts = urlsplit(address.strip())
    if parts.scheme == "unix":
        path = parts.netloc + parts.path
        if not path.startswith("/"):
            raise ValueError(f"unix://{path} is no absolute path")
        return Endpoint(path=path)
    if parts.scheme not in ("tcp", "http", "https"):
        raise ValueError(f"unknown protocol {parts.scheme!r}")
    if not parts.hostname:
        raise ValueError("it names no host")
    port = parts.port or (443 if parts.scheme == "https" else 80)  # .port raises ValueError too
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Endpoint(host=f"{host}:{port}", tls=_trusting(tls) if parts.scheme == "https" else None)


def _trusting(tls: TLS | None) -> TLS:
    tls = tls or TLS()
    return tls if tls.ca_file else msgspec.structs.replace(tls, insecure_skip_verify=True)


def parse_json(content: bytes) -> Endpoint:
    """Raises ValueError."""
    try:
        file = msgspec.json.decode(content, type=_File)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return parse_address(file.addr, file.tls)


# --- the folders ---


class Discovery:
    """`folders`: where to look, the first found wins."""

    def __init__(self, folders: Iterable[str] = FOLDERS) -> None:
        self._folders = [Path(folder) for folder in folders]

    def names(self) -> list[str]:
        """Of every plugin that there is a file of, whatever it does; at most MAX_PLUGINS."""
        found: set[str] = set()
        for folder in self._folders:
            for name, path in _files(folder):
                if _is_one(path):
                    found.add(name)
        return sorted(found)[:MAX_PLUGINS]

    def find(self, name: str) -> Endpoint | None:
        """None where there is no such plugin. Raises ShoalError where its file says nothing useful."""
        if not _NAME.fullmatch(name):
            return None
        for kind in KINDS:
            for path in self._paths(name, kind):
                if _is_one(path):
                    return _read(name, path)
        return None

    def _paths(self, name: str, kind: str) -> Sequence[Path]:
        file = f"{name}{kind}"
        return [path for folder in self._folders for path in (folder / file, folder / name / file)]


def _files(folder: Path) -> Iterable[tuple[str, Path]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if path.suffix in KINDS and _NAME.fullmatch(path.stem):
            yield path.stem, path
        elif _NAME.fullmatch(entry.name):
            yield from ((entry.name, path / (entry.name + each)) for each in KINDS)


def _is_one(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) if path.suffix == ".sock" else stat.S_ISREG(mode)


def _read(name: str, path: Path) -> Endpoint:
    if path.suffix == ".sock":
        return Endpoint(path=str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
        return parse_json(content) if path.suffix == ".json" else parse_address(content.decode())
    except (OSError, ValueError) as error:
        raise ShoalError(f"plugin {name}: {path} cannot be used: {error}") from error
