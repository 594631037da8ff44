#!/usr/bin/env python3
"""A volume plugin that keeps volumes on another host, over SFTP. See README.md beside this file.

    <base>/<volume>/             on the other host: what is in the volume
    <mounts>/<volume>            here: that folder, mounted by sshfs while somebody holds the volume
    <mounts>/holders.json        who does, so that a plugin that is started anew knows

It needs Python 3.11, sshfs and the OpenSSH client, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
MAX_BODY_BYTES = 1 << 20
COMMAND_TIMEOUT_S = 30
CLIENT_TIMEOUT_S = 60


class Refused(Exception):
    """What the daemon is told in `Err`."""


# --- the other host ---


class Remote:
    """A folder of the other host, by the programs of OpenSSH and sshfs. Names have been checked."""

    def __init__(self, target: str, ssh: list[str]) -> None:
        self.login, _, self.base = target.partition(":")
        if not self.login or not self.base.startswith("/"):
            raise SystemExit(f"the target {target!r} is not [user@]host:/folder")
        self._ssh = [
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2", *ssh]

    def names(self) -> list[str]:
        lines = self._sftp(f'ls -1 "{self.base}"').splitlines()
        names = (line.strip().rpartition("/")[2] for line in lines if not line.startswith("sftp>"))
        return sorted(name for name in names if NAME.fullmatch(name))

    def make(self, name: str) -> None:
        self._sftp(f'-mkdir "{self.base}/{name}"\ncd "{self.base}/{name}"')

    def unmake(self, name: str) -> None:
        self._sftp(f'rmdir "{self.base}/{name}"')

    def mount(self, name: str, place: Path) -> None:
        options = ["-o", "allow_other,default_permissions,reconnect,max_conns=2"]
        run(["sshfs", *self._ssh, *options, f"{self.login}:{self.base}/{name}", str(place)])

    def _sftp(self, commands: str) -> str:
        return run(["sftp", *self._ssh, "-b", "-", self.login], commands)


def run(command: list[str], given: str = "") -> str:
    """What it says. Its output goes to files: what it leaves running in the background holds on to them."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            done = subprocess.run(command, input=given, text=True, stdout=out, stderr=err, timeout=COMMAND_TIMEOUT_S,
                                  check=False)
        except subprocess.TimeoutExpired:
            raise Refused(f"{command[0]} was not done in {COMMAND_TIMEOUT_S} s") from None
        out.seek(0)
        err.seek(0)
        if done.returncode:
            raise Refused(f"{command[0]}: {err.read().strip()[-500:] or f'ended with {done.returncode}'}")
        return out.read()


# --- this host ---


class Volumes:
    """Who holds what. One volume is looked after by one thread at a time."""

    def __init__(self, remote: Remote, mounts: Path) -> None:
        self._remote = remote
        self._mounts = mounts
        self._record = mounts / "holders.json"
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._holders: dict[str, set[str]] = {}
        if self._record.exists():
            self._holders = {name: set(ids) for name, ids in json.loads(self._record.read_text()).items()}

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield

    def _hold(self, change: Callable[[dict[str, set[str]]], None]) -> None:
        with self._lock:
            change(self._holders)
            fresh = self._record.with_suffix(".new")
            fresh.write_text(json.dumps({name: sorted(ids) for name, ids in self._holders.items() if ids}))
            fresh.replace(self._record)

    def place(self, name: str) -> Path:
        return self._mounts / name

    def create(self, name: str, options: dict[str, str]) -> dict[str, Any]:
        if options:
            raise Refused(f"unknown option {sorted(options)[0]!r}: this plugin has none for each volume")
        self._remote.make(name)
        return {}

    def get(self, name: str) -> dict[str, Any]:
        if name not in self._remote.names():
            raise Refused(f"there is no volume {name} on {self._remote.login}")
        return {"Volume": self._told(name)}

    def list(self) -> dict[str, Any]:
        return {"Volumes": [self._told(name) for name in self._remote.names()]}

    def _told(self, name: str) -> dict[str, Any]:
        with self._lock:
            held = len(self._holders.get(name, ()))
        return {"Name": name, "Mountpoint": str(self.place(name)) if held else "",
                "Status": {"host": self._remote.login, "folder": f"{self._remote.base}/{name}", "holders": held}}

    def path(self, name: str) -> dict[str, Any]:
        with self._lock:
            return {"Mountpoint": str(self.place(name)) if self._holders.get(name) else ""}

    def mount(self, name: str, holder: str) -> dict[str, Any]:
        with self._alone(name):
            self._bring(name)
            self._hold(lambda held: held.setdefault(name, set()).add(holder))
        return {"Mountpoint": str(self.place(name))}

    def unmount(self, name: str, holder: str) -> dict[str, Any]:
        with self._alone(name):
            self._hold(lambda held: held.get(name, set()).discard(holder))
            if not self._holders.get(name):
                self._take_down(name)
        return {}

    def remove(self, name: str) -> dict[str, Any]:
        """SFTP deletes no folder that has something in it: that is done through the mount."""
        with self._alone(name):
            if self._holders.get(name):
                raise Refused(f"volume {name} is mounted")
            self._bring(name)
            try:
                for entry in self.place(name).iterdir():
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            finally:
                self._take_down(name)
            self._remote.unmake(name)
        return {}

    def _bring(self, name: str) -> None:
        """Mounted, and answering: what an sshfs that has died left is taken away first."""
        place = self.place(name)
        if is_mounted(place):
            try:
                os.statvfs(place)
                return
            except OSError:
                self._take_down(name)
        place.mkdir(exist_ok=True)
        self._remote.mount(name, place)

    def _take_down(self, name: str) -> None:
        if is_mounted(self.place(name)):
            run(["fusermount3", "-u", "-z", str(self.place(name))])
        if self.place(name).exists():
            self.place(name).rmdir()


def is_mounted(place: Path) -> bool:
    """Asked of the kernel's table: a look at the place itself may wait for the other host."""
    return any(line.split(" ", 5)[4] == str(place) for line in Path("/proc/self/mountinfo").read_text().splitlines())


# --- the protocol ---


class Handler(BaseHTTPRequestHandler):
    """Docker's plugin protocol v1: each call is a POST with an object, answered with an object."""

    protocol_version = "HTTP/1.1"
    timeout = CLIENT_TIMEOUT_S
    volumes: Volumes

    def address_string(self) -> str:
        return "daemon"

    def do_POST(self) -> None:
        try:
            status, answer = 200, {"Err": "", **self._answer(self._body())}
        except Refused as error:
            status, answer = 500, {"Err": str(error)}
        except OSError as error:
            status, answer = 500, {"Err": f"{error.filename or self._call()}: {error.strerror}"}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _call(self) -> str:
        return self.path.removeprefix("/")

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused("the body is too long, or of unknown length")
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            raise Refused("the body is no JSON") from None
        if not isinstance(body, dict):
            raise Refused("the body is no object")
        return body

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._call() == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        if self._call() == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if self._call() == "VolumeDriver.List":
            return self.volumes.list()
        name, holder, options = body.get("Name"), body.get("ID"), body.get("Opts") or {}
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Refused(f"{name!r} cannot be a volume's name: letters, digits, '_', '.' and '-' can")
        match self._call():
            case "VolumeDriver.Create":
                return self.volumes.create(name, options)
            case "VolumeDriver.Remove":
                return self.volumes.remove(name)
            case "VolumeDriver.Get":
                return self.volumes.get(name)
            case "VolumeDriver.Path":
                return self.volumes.path(name)
            case "VolumeDriver.Mount":
                return self.volumes.mount(name, str(holder))
            case "VolumeDriver.Unmount":
                return self.volumes.unmount(name, str(holder))
        raise Refused(f"unknown call {self._call()!r}")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep volumes in a folder of another host, over SFTP.")
    parser.add_argument("target", help="[user@]host:/folder, which exists")
    parser.add_argument("--socket", type=Path, default=Path("/run/docker/plugins/sftp.sock"))
    parser.add_argument("--mounts", type=Path, default=Path("/run/volume-sftp"))
    parser.add_argument("--ssh-option", action="append", default=[], metavar="KEY=VALUE", help="for ssh(1), repeatable")
    given = parser.parse_args()
    remote = Remote(given.target, [word for option in given.ssh_option for word in ("-o", option)])
    Handler.volumes = Volumes(remote, given.mounts)
    given.socket.parent.mkdir(parents=True, exist_ok=True)
    given.socket.unlink(missing_ok=True)
    os.umask(0o077)
    with Server(str(given.socket), Handler) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
