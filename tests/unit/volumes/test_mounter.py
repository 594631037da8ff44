"""File systems of volumes that are slow to come, or to go: by programs that stand for mount(8) and umount(8)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shoal.api.errors import ShoalError
from shoal.engine.volumes.mounter import Mounter

OPTIONS = {"type": "nfs", "device": ":/share", "o": "vers=4"}
SOON_S, NEVER_S = 0.05, 60.0
WAITS = "while [ ! -e {folder}/go ]; do sleep 0.02; done; "
MOUNTS, UNMOUNTS = "touch {folder}/mounted", "rm {folder}/mounted"


class Programs:
    """`mount` and `umount` as scripts. What is mounted is a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "place"
        self.path = folder / "bin"
        self.path.mkdir()
        self.write(mount=MOUNTS, umount=UNMOUNTS)

    def write(self, **scripts: str) -> None:
        for name, script in scripts.items():
            file = self.path / name
            file.write_text(f"#!/bin/sh\n{script.format(folder=self.folder)}\n")
            file.chmod(0o755)

    def mounted(self, place: Path) -> bool:
        assert place == self.place
        return (self.folder / "mounted").exists()

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
async def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Programs]:
    made = Programs(tmp_path)
    monkeypatch.setenv("PATH", f"{made.path}:{os.environ['PATH']}")
    yield made
    made.go()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(NEVER_S):
        while not true():
            await asyncio.sleep(0.01)


async def let_end(programs: Programs, mounter: Mounter) -> None:
    """What still runs, before this test's loop is closed."""
    programs.go()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    await mounter.close()


async def test_mounted_once_and_unmounted(programs: Programs) -> None:
    mounter = Mounter(mounted=programs.mounted)
    await mounter.mount(OPTIONS, programs.place)
    programs.write(mount="exit 1")
    await mounter.mount(OPTIONS, programs.place)
    await mounter.unmount(programs.place)
    assert not programs.mounted(programs.place)
    await mounter.unmount(programs.place)
    await mounter.close()


@pytest.mark.parametrize(("script", "said"), [
    pytest.param("echo 'mount: no route, password=secret' >&2; echo '       dmesg(1) may have more information after "
                 "failed mount system call.' >&2; exit 32", r"failed to mount local volume: mount: no route, "
                 r"password=\*+$", id="says why"),
    pytest.param("exit 32", "failed to mount local volume: :/share$", id="says nothing"),
])
async def test_a_mount_that_fails(programs: Programs, script: str, said: str) -> None:
    programs.write(mount=script)
    with pytest.raises(ShoalError, match=said):
        await Mounter(mounted=programs.mounted).mount(OPTIONS, programs.place)


async def test_a_mount_that_is_given_up_dies_with_its_helpers(programs: Programs) -> None:
    programs.write(mount=f"sh -c '{WAITS} {MOUNTS}'; :")
    mounter = Mounter(mounted=programs.mounted, mount_timeout_s=SOON_S, unmount_timeout_s=NEVER_S)
    with pytest.raises(ShoalError, match=r":/share was not mounted in 0.05 s"):
        await mounter.mount(OPTIONS, programs.place)
    await mounter.unmount(programs.place)  # waits until they have ended
    programs.go()
    assert not programs.mounted(programs.place)
    await mounter.close()


async def given_up(programs: Programs, mounter: Mounter) -> None:
    """A mount that does not die when it is killed: it comes about with `go`."""
    programs.write(mount=f"setsid -w sh -c 'touch {{folder}}/begun; {WAITS} {MOUNTS}'; :")
    mounting = asyncio.create_task(mounter.mount(OPTIONS, programs.place))
    await until((programs.folder / "begun").exists)
    mounting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mounting


async def test_one_that_comes_about_all_the_same_is_unmounted_before_the_next(programs: Programs) -> None:
    mounter = Mounter(mounted=programs.mounted, unmount_timeout_s=NEVER_S)
    await given_up(programs, mounter)
    programs.write(mount=f"touch {programs.folder}/again; {MOUNTS}", umount=f"touch {programs.folder}/gone; {UNMOUNTS}")
    again = asyncio.create_task(mounter.mount(OPTIONS, programs.place))
    programs.go()
    await again
    assert (programs.folder / "gone").exists()
    assert (programs.folder / "again").exists(), "it was taken for what was asked for now"
    await mounter.close()


async def test_one_that_is_only_dropped_is_unmounted_too(programs: Programs) -> None:
    mounter = Mounter(mounted=programs.mounted, unmount_timeout_s=NEVER_S)
    await given_up(programs, mounter)
    programs.write(umount=f"touch {programs.folder}/gone; {UNMOUNTS}")
    programs.go()
    await until((programs.folder / "gone").exists)
    await until(lambda: not programs.mounted(programs.place))
    await mounter.close()


async def test_nothing_is_done_there_while_it_may_still_come(programs: Programs) -> None:
    mounter = Mounter(mounted=programs.mounted, unmount_timeout_s=SOON_S)
    await given_up(programs, mounter)
    for work in (mounter.mount(OPTIONS, programs.place), mounter.unmount(programs.place)):
        with pytest.raises(ShoalError, match="was given up, and has not ended yet"):
            await work
    await let_end(programs, mounter)


async def test_nobody_waits_for_a_server_once_the_mount_is_gone(programs: Programs) -> None:
    """As Linux has it: umount(8) goes on telling a silent server of a mount that is not there any more."""
    programs.write(umount=f"{UNMOUNTS}; {WAITS}")
    mounter = Mounter(mounted=programs.mounted, unmount_timeout_s=NEVER_S)
    await mounter.mount(OPTIONS, programs.place)
    async with asyncio.timeout(NEVER_S / 2):
        await mounter.unmount(programs.place)
    await let_end(programs, mounter)


@pytest.mark.parametrize(("script", "timeout_s", "said"), [
    pytest.param("echo 'umount: busy' >&2; exit 32", NEVER_S, "failed to unmount local volume: umount: busy",
                 id="fails"),
    pytest.param(WAITS, SOON_S, "is still mounted after 0.05 s", id="hangs"),
])
async def test_what_stays_mounted_is_said(programs: Programs, script: str, timeout_s: float, said: str) -> None:
    programs.write(umount=script)
    mounter = Mounter(mounted=programs.mounted, unmount_timeout_s=timeout_s)
    await mounter.mount(OPTIONS, programs.place)
    with pytest.raises(ShoalError, match=said):
        await mounter.unmount(programs.place)
    await mounter.close()
