"""The registry as an image, in an archive that `docker load` takes. Equal contents give an equal image.

Source: the OCI image configuration; the `manifest.json` of docker-archive files.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shoal.registry import contents
from shoal.registry.deployment import DATA, PORT, SETTINGS

REPOSITORY = "shoal-registry"
COMMAND = "usr/bin/shoal"
_SCRIPT = f"#!/{contents.PYTHON}\nfrom shoal.cli.main import main\n\nmain()\n".encode()
_FOLDERS = {"tmp": 0o1777, DATA.lstrip("/"): 0o755, SETTINGS.lstrip("/"): 0o755}


class Packed(msgspec.Struct, frozen=True):
    """The archive, and the name by which its image is known once it is loaded."""

    archive: Path
    reference: str


def pack(folder: Path) -> Packed:
    """Make the archive in `folder`, of what is on this host. Raises InvalidArgument for what is missing here."""
    layer = folder / "layer.tar"
    files = contents.collect()
    _write_layer(layer, files)
    config = msgspec.json.encode(_configuration(_digest_of(layer), contents.environment(files)))
    reference = f"{REPOSITORY}:{hashlib.sha256(config).hexdigest()[:12]}"
    manifest = msgspec.json.encode([{"Config": "config.json", "RepoTags": [reference], "Layers": [layer.name]}])
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as target:
        for name, content in (("manifest.json", manifest), ("config.json", config)):
            _add(target, name, content, 0o644)
        target.add(layer, layer.name)
    return Packed(archive, reference)


def _write_layer(path: Path, files: Mapping[str, Path]) -> None:
    folders = dict(_FOLDERS)
    for name in (*files, COMMAND, *_FOLDERS):
        folders.update({str(each): 0o755 for each in Path(name).parents if str(each) not in (".", *folders)})
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as layer:
        for name in sorted(folders):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, folders[name]
            layer.addfile(entry)
        for name in sorted(files):
            runs = name == contents.PYTHON or name.startswith("lib")  # the loader of shared libraries
            _add(layer, name, files[name].read_bytes(), 0o755 if runs else 0o644)
        _add(layer, COMMAND, _SCRIPT, 0o755)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _configuration(diff_id: str, environment: Mapping[str, str]) -> dict[str, object]:
    return {
        "architecture": contents.architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [f"/{COMMAND}", "registry"],
            "Cmd": ["serve", "--root", DATA, "--listen", f":{PORT}"],
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "ExposedPorts": {f"{PORT}/tcp": {}}, "Volumes": {DATA: {}}, "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "shoal registry deploy"}],
    }
