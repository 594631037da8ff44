"""Volumes of the local driver: names, records, claims, who holds them."""

import asyncio
from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.engine.volumes.volumes import Volumes


async def test_volumes(tmp_path: Path) -> None:
    users: dict[str, list[str]] = {"used": ["c1"]}
    volumes = Volumes(tmp_path / "volumes", tmp_path / "held", users=lambda name: users.get(name, []))
    made = await volumes.create("used", labels={"a": "1"})
    assert await volumes.create("used") == made
    anonymous = await volumes.create()
    first, second = await asyncio.gather(volumes.create("same"), volumes.create("same"))
    assert first.name == second.name
    (Path(anonymous.mountpoint) / "file").write_bytes(b"12345")
    with pytest.raises(Conflict, match=r"remove used: volume is in use - \[c1\]"):
        await volumes.remove("used")
    again = Volumes(tmp_path / "volumes", tmp_path / "held", users=lambda name: users.get(name, []))
    assert again.get("used") == made
    pruned = await again.prune()
    assert (pruned.deleted, pruned.reclaimed_bytes) == ((anonymous.name,), 5)
    assert [one.name for one in again.all()] == ["same", "used"]
    with pytest.raises(NotFound, match="get none: no such volume"):
        await again.remove("none")
    await again.remove("none", force=True)


@pytest.mark.parametrize(("arguments", "error"), [
    ({"name": "x"}, InvalidArgument), ({"name": "a/b"}, InvalidArgument), ({"name": "ab", "driver": "nfs"}, NotFound),
    ({"name": "ab", "options": {"colour": "red"}}, InvalidArgument),
    ({"name": "ab", "options": {"type": "tmpfs"}}, InvalidArgument),
    ({"name": "ab", "options": {"size": "1g"}}, InvalidArgument),
])
async def test_volumes_that_are_refused(tmp_path: Path, arguments: dict[str, object], error: type) -> None:
    with pytest.raises(error):
        await Volumes(tmp_path / "volumes", tmp_path / "held").create(**arguments)  # type: ignore[arg-type]
    assert list((tmp_path / "volumes").iterdir()) == []
