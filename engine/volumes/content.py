"""The content of a volume: filled from an image, measured, and a folder in it found.

What looks into a volume that is mounted may wait for ever for a server that has gone away.
So it runs as a program of its own there (`python -m shoal.engine.volumes.content`, the
request in its arguments), which is killed when its time is over; `Content` chooses.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.storage.measure import tree_bytes
from shoal.engine.storage.mount import open_in_root
from shoal.engine.storage.trees import remove_tree

FILL_TIMEOUT_S = 600
LOOK_TIMEOUT_S = 20
MAX_SAID_BYTES = 16 << 10


async def fill(volume: Path, root: Path, target: str, *, foreign: bool) -> None:
    """Copy what a root has at `target` into the volume, if that is empty. All or nothing. Raises ShoalError.

    `foreign`: it is mounted from somewhere.
    """
    words = (str(volume), str(root), target)
    if foreign:
        if not await _apart("look", *words, timeout_s=LOOK_TIMEOUT_S, failed=f"cannot look into volume {volume}"):
            return
    elif not await asyncio.to_thread(_wants_filling, volume, root, target):
        return
    await _apart("fill", *words, timeout_s=FILL_TIMEOUT_S,
                 failed=f"cannot copy {target} of the image into volume {volume}")


async def subpath(volume: str, inside: str, *, foreign: bool) -> str:
    """A folder or file inside a volume; never outside, whatever links are in it. Raises InvalidArgument."""
    if foreign:
        return await _apart("find", volume, inside, timeout_s=LOOK_TIMEOUT_S,
                            failed=f"cannot access path {volume}/{inside}")
    return await asyncio.to_thread(find, volume, inside)


def size_bytes(root: Path) -> int:
    """Of a local folder. Blocking."""
    return tree_bytes(root)


async def _apart(*words: str, timeout_s: float, failed: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "shoal.engine.volumes.content", *words, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd="/", start_new_session=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout_s):
            out, said = await asyncio.gather(read_all(process.stdout), read_all(process.stderr))
            code = await process.wait()
    except TimeoutError:
        raise ShoalError(f"{failed}: the volume did not answer in {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # and no wait: who waits for a dead server may not die either
    if code:
        kind = InvalidArgument if words[0] == "find" else ShoalError
        raise kind(f"{failed}: {said.decode(errors='replace').strip()}")
    return out.decode(errors="surrogateescape")


async def read_all(stream: asyncio.StreamReader) -> bytes:
    """To its end; the first MAX_SAID_BYTES of it."""
    kept = bytearray()
    while chunk := await stream.read(MAX_SAID_BYTES):
        kept += chunk[: MAX_SAID_BYTES - len(kept)]
    return bytes(kept)


# --- what blocks ---


def find(volume: str, inside: str) -> str:
    root_fd = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    try:
        found = open_in_root(root_fd, os.fsencode(inside), os.O_PATH)
    except OSError as error:
        raise InvalidArgument(f"cannot access path {volume}/{inside}: {error.strerror}") from error
    finally:
        os.close(root_fd)
    try:
        return os.readlink(f"/proc/self/fd/{found}")  # noqa: PTH115
    finally:
        os.close(found)


def _wants_filling(volume: Path, root: Path, target: str) -> bool:
    with os.scandir(volume) as entries:
        if next(entries, None) is not None:
            return False
    source = _open(root, target)
    if source >= 0:
        os.close(source)
    return source >= 0


def _open(root: Path, target: str) -> int:
    """The folder there, -1 where there is none."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return open_in_root(root_fd, os.fsencode(target.lstrip("/") or "."), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return -1
    finally:
        os.close(root_fd)


def copy(volume: Path, root: Path, target: str) -> None:
    """With owners, modes, times, extended attributes and links; the folder's own too. Raises ShoalError."""
    if any(volume.iterdir()):
        return
    source = _open(root, target)
    if source < 0:
        return
    done = subprocess.run(["cp", "-a", f"/proc/self/fd/{source}/.", str(volume)], capture_output=True, text=True,
                          pass_fds=(source,), check=False)
    os.close(source)
    if done.returncode:
        for left in volume.iterdir():  # half of it would look like all of it the next time
            if left.is_dir() and not left.is_symlink():
                remove_tree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        raise ShoalError(done.stderr.strip()[-1000:])


def main(words: list[str]) -> int:
    try:
        if words[0] == "look":
            sys.stdout.write("empty" if _wants_filling(Path(words[1]), Path(words[2]), words[3]) else "")
        elif words[0] == "fill":
            copy(Path(words[1]), Path(words[2]), words[3])
        else:
            sys.stdout.buffer.write(os.fsencode(find(words[1], words[2])))
    except (ShoalError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
