"""The image that a lab's hosts start with: this machine's static busybox, so that nothing has to be fetched."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from shoal.lab.processes import LabError

BUSYBOX = Path("/bin/busybox")
NAME = "busybox:latest"
_CREATED = "2026-01-01T00:00:00Z"
_FOLDERS = ("bin", "dev", "etc", "home", "lib", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var", "var/tmp", "www")
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}


def archive(name: str = NAME, programs: Iterable[str | Path] = ()) -> tuple[bytes, str]:
    """An image archive as `docker load` takes it, and the image's id: equal input gives equal bytes.

    `programs` are taken from this machine with their paths. Raises LabError where busybox is missing.
    """
    layer = _layer(programs)
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "created": _CREATED,
            "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
            "history": [{"created": _CREATED, "created_by": "busybox of the host"}],
        }
    ).encode()
    image_id = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        _add(tar, f"{image_id}.json", config)
        _add(tar, "layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return output.getvalue(), f"sha256:{image_id}"


def _layer(programs: Iterable[str | Path]) -> bytes:
    try:
        busybox = BUSYBOX.read_bytes()
        applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        raise LabError(f"{BUSYBOX} is missing: install busybox-static (make setup does)") from None
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder in _FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
            tar.addfile(entry)
        for path, content in _FILES.items():
            _add(tar, path, content)
        _add(tar, "bin/busybox", busybox, 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for program in programs:
            _add(tar, str(program).lstrip("/"), Path(program).read_bytes(), 0o755)
    return output.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":  # python -m shoal.lab.image | shoal image load -
    sys.stdout.buffer.write(archive()[0])
