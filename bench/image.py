"""The image that both sides run: busybox and iperf3, from this machine's packages."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

NAME = "shoal-bench:latest"


def build(folder: Path) -> tuple[Path, str]:
    """Write a docker-archive. Returns its path and the image's id, the same on every host."""
    layer = _layer()
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "bench"}],
        }
    ).encode()
    image_id = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    path = folder / "image.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (
            (f"{image_id}.json", config), ("layer.tar", layer), ("manifest.json", json.dumps(manifest).encode())
        ):
            _add(archive, name, content)
    return path, f"sha256:{image_id}"


def _layer() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder in ("bin", "usr", "usr/bin", "etc", "tmp", "proc", "sys", "dev", "root", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\n")
        _add(tar, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for source in ("/usr/bin/iperf3", *_libraries("/usr/bin/iperf3")):
            _add(tar, source.lstrip("/"), Path(source).read_bytes(), 0o755)
    return output.getvalue()


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", listed)))


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
