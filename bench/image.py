"""The image that both sides run: the lab's busybox, and iperf3 from this machine's packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from shoal.lab.image import archive

NAME = "shoal-bench:latest"
IPERF = "/usr/bin/iperf3"


def build(folder: Path) -> tuple[Path, str]:
    """Write the archive. Returns its path and the image's id, the same on every host."""
    content, image_id = archive(NAME, [IPERF, *_libraries(IPERF)])
    path = folder / "image.tar"
    path.write_bytes(content)
    return path, image_id


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", listed)))
