"""Dockerfiles that each show one behaviour. What becomes of them is written down on dockerd, and compared on shoald.

    cases/<name>/Dockerfile     with `context/` as its context
    cases/<name>/case.json      where it needs more: "args" of docker build, "write" (files for the context), "then"
                                (further builds: what to "write", "touch", "chmod" before, and "args"), "buildkit" (the
                                classic builder does not know it), "hand" (why its result was not made by dockerd),
                                "error" (words of our error, where dockerd says the same in others: "why"),
                                "without" (files in which versions of Docker differ: "why")
    cases/<name>/expected.json  the result of each build; the second is the first again

A result has the image's configuration, its history, what its files are (those that the base does not have in the same
way), and which steps came out of the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).parent
BASE = "busybox:latest"
DEADLINE_S = 120
BUILDKIT_DOCKER = "/usr/bin/docker"
"""Debian's, of 20.10: newer ones want buildx for BuildKit."""

Json = dict[str, Any]

_MADE_FOR_IT = re.compile(r"^(dev|proc|sys|\.dockerenv|etc/hosts|etc/hostname|etc/resolv\.conf|etc/mtab)(/|$)")
_KEPT = ("User", "ExposedPorts", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "Labels", "StopSignal", "Shell",
         "OnBuild", "Healthcheck")


def cases() -> list[str]:
    return sorted(path.name for path in (HERE / "cases").iterdir())


class Case:
    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = HERE / "cases" / name
        more = self.folder / "case.json"
        self.settings: Json = json.loads(more.read_text()) if more.exists() else {}

    @property
    def buildkit(self) -> bool:
        return bool(self.settings.get("buildkit"))

    @property
    def by_hand(self) -> str:
        return str(self.settings.get("hand", ""))

    def expected(self) -> list[Json]:
        found: list[Json] = json.loads((self.folder / "expected.json").read_text())
        return found

    def write_expected(self, results: list[Json]) -> None:
        (self.folder / "expected.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")

    def builds(self) -> list[Json]:
        """The settings of each build."""
        first = {"args": self.settings.get("args", [])}
        return [first, first, *({**first, **then} for then in self.settings.get("then", []))]

    def context(self, root: Path) -> Path:
        folder = root / self.name
        shutil.copytree(HERE / "context", folder, symlinks=True)
        shutil.copy(self.folder / "Dockerfile", folder)
        _archives(folder)
        change(folder, self.settings)
        for parent, folders, files in os.walk(folder):  # whatever umask they were checked out with
            for name in [*folders, *files]:
                place = Path(parent, name)
                if not place.is_symlink():
                    place.chmod(0o755 if place.is_dir() or name.endswith(".sh") else 0o644)
        return folder


def change(folder: Path, settings: Json) -> None:
    for name, content in settings.get("write", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)
    for name, mode in settings.get("chmod", {}).items():
        (folder / name).chmod(mode)
    for name in settings.get("touch", []):
        os.utime(folder / name, (1_000_000_000, 1_000_000_000))


def _archives(folder: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, kind, content in (("in", tarfile.DIRTYPE, b""), ("in/file", tarfile.REGTYPE, b"packed\n"),
                                    ("in/link", tarfile.SYMTYPE, b"file")):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mtime = kind, 3, 4, 1_000_000_000
            member.mode = 0o750 if kind == tarfile.DIRTYPE else 0o640
            if kind == tarfile.SYMTYPE:
                member.linkname = content.decode()
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "archive.tar").write_bytes(plain.getvalue())
    (folder / "archive.tar.gz").write_bytes(gzip.compress(plain.getvalue(), mtime=0))


class Host:
    """A daemon at a socket, whichever it is."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self._path = path
        self._environment = {**environment, "DOCKER_HOST": f"unix://{path}"}
        self._base = self.files(BASE)

    def run(self, case: Case, root: Path) -> list[Json]:
        """The result of each build of a case."""
        folder, results = case.context(root), []
        for settings in case.builds():
            change(folder, settings)
            results.append(self._build(case, folder, settings["args"]))
        self.forget(case)
        return results

    def forget(self, case: Case) -> None:
        self._call("DELETE", f"/images/{_tag(case)}?force=1")

    def _build(self, case: Case, folder: Path, args: list[str]) -> Json:
        kit = case.buildkit and not self._classic_only
        command = [BUILDKIT_DOCKER if kit else "docker", "build", "--tag", _tag(case), *args, str(folder)]
        done = subprocess.run(command, env={**self._environment, "DOCKER_BUILDKIT": "1" if kit else "0"}, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False)
        if done.returncode:
            return {"error": _error(done.stderr), "code": done.returncode}
        image = json.loads(self._call("GET", f"/images/{_tag(case)}/json"))
        files = _differing(self.files(_tag(case)), self._base)
        for name in case.settings.get("without", []):
            files.pop(name, None)
        result: Json = {"config": _config(image["Config"]), "files": files}
        if not case.buildkit and not case.by_hand:
            history = json.loads(self._call("GET", f"/images/{_tag(case)}/history"))
            result["history"] = [_line(row["CreatedBy"]) for row in reversed(history)]
            result["cached"] = _cached(done.stdout)
            result["layers"] = len(image["RootFS"].get("Layers") or ())
            result["author"] = image["Author"]
        return result

    @property
    def _classic_only(self) -> bool:
        return "shoal" in self._path.name

    def files(self, image: str) -> Json:
        made = json.loads(self._call("POST", "/containers/create", {"Image": image, "Cmd": ["x"]}))
        try:
            archive = self._call("GET", f"/containers/{made['Id']}/export")
        finally:
            self._call("DELETE", f"/containers/{made['Id']}?force=1&v=1")
        found = {}
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                name = member.name.strip("./") or "."
                if not _MADE_FOR_IT.match(name) and name != ".":
                    found[name] = _described(tar, member)
        return found

    def _call(self, method: str, path: str, body: Any = None) -> bytes:
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_S)
        connection.sock.connect(str(self._path))
        try:
            connection.request(method, f"/v1.41{quote(path, safe='/?=&:')}", None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"} if body is not None else {})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 400 or method == "DELETE", (method, path, content)
            return content
        finally:
            connection.close()


def _tag(case: Case) -> str:
    return f"corpus-{case.name.replace('_', '-')}:latest"


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    about = f"{member.mode & 0o7777:o} {member.uid}:{member.gid}"
    if member.issym():
        return f"link {member.linkname}"
    if member.islnk():
        return f"hard link {member.linkname}"
    if member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        data = content.read()
        text = data.decode(errors="replace") if len(data) < 200 else hashlib.sha256(data).hexdigest()
        return f"file {about} {text!r}"
    return f"{'folder' if member.isdir() else 'other'} {about}"


def _differing(files: Json, base: Json) -> Json:
    """What is new or other; None for what is no more."""
    return {**{name: about for name, about in files.items() if base.get(name) != about},
            **{name: None for name in base if name not in files}}


def _config(config: Json) -> Json:
    """What of the configuration says something, in one form."""
    kept = {key: config[key] for key in _KEPT if config.get(key)}
    if "Healthcheck" in kept:
        kept["Healthcheck"] = {key: value for key, value in kept["Healthcheck"].items() if value}
    return kept


def _line(created_by: str) -> str:
    line = re.sub(r"(--chown=\S+?)(?= ?(?:file|dir|multi):) ?", r"\1 ", created_by)  # 20.10 forgets the blank
    line = re.sub(r"\b(file|dir|multi):[0-9a-f]{64}", r"\1:…", line)
    return re.sub(r"(HEALTHCHECK) .*", r"\1 …", line)


def _cached(said: str) -> list[bool]:
    """Of each step, FROM and those before it left out."""
    steps = re.split(r"^Step \d+/\d+ : ", said, flags=re.MULTILINE)[1:]
    return ["---> Using cache" in step for step in steps if not step.upper().startswith("FROM")]


def _error(said: str) -> str:
    """The last line, without where it is in the Dockerfile, which dockerd does not say."""
    lines = [line for line in said.splitlines() if line.strip()]
    line = lines[-1].removeprefix("Error response from daemon: ")
    return re.sub(r" \(Dockerfile:\d+: .*\)$", "", line)
