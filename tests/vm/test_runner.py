"""What runs the machines leaves no process behind, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.image import CHECKOUT, Image

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

GONE_WITHIN_S = 60.0
RUNNER = """
import sys
from pathlib import Path
from tests.vm.image import image
from tests.vm.machines import Machines

base = image()
with Machines(base, Path(sys.argv[1]), 1, base.disk) as machines:
    machines.boot("bare")
    print("up", flush=True)
    sys.stdin.readline()
    raise RuntimeError("as a test that fails")
"""


@pytest.mark.parametrize("end", [
    pytest.param(lambda runner: runner.stdin.write("go on\n"), id="fails"),
    pytest.param(subprocess.Popen.terminate, id="terminated"),
    pytest.param(subprocess.Popen.kill, id="killed"),
])
def test_no_process_outlives_the_runner(
    base: Image, tmp_path: Path, end: Callable[[subprocess.Popen[str]], None],
) -> None:
    with subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], cwd=CHECKOUT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        programs = {words[0].rpartition("/")[2] for words in of_folder(tmp_path, but=runner.pid)}
        assert programs == {"qemu-system-x86_64", "ssh"}
        end(runner)
    assert runner.returncode != 0
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := of_folder(tmp_path, but=runner.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def of_folder(folder: Path, *, but: int) -> list[list[str]]:
    """The command lines of the processes that name the folder, without one process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != but:
            try:
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
            except OSError:  # it has ended meanwhile
                continue
            if any(str(folder) in word for word in words):
                found.append(words)
    return found
