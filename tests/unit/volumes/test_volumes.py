"""Volumes of the local driver: names, records, claims, who holds them."""

import asyncio
from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.engine.volumes.holds import Holds
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


async def test_claims_protect_until_they_are_settled(tmp_path: Path) -> None:
    """Between the making of a volume and of the container that refers to it nobody takes it away."""
    volumes = Volumes(tmp_path / "volumes", tmp_path / "held")
    made = await volumes.create(claim="c1")
    with pytest.raises(Conflict, match=r"volume is in use - \[c1\]"):
        await volumes.remove(made.name)
    assert (await volumes.prune()).deleted == ()
    volumes.settle("c1")
    assert (await volumes.prune()).deleted == (made.name,)


async def test_what_a_killed_daemon_left_is_swept(tmp_path: Path) -> None:
    """A folder without a record is deleted, one whose record cannot be read is not; who is gone lets go."""
    root, held = tmp_path / "volumes", tmp_path / "held"
    await Volumes(root, held).create("whole")
    for name in ("half", "unreadable"):
        (root / name / "_data").mkdir(parents=True)
    (root / "unreadable/volume.json").write_text("{")
    (root / "half/volume.json.new").touch()
    holds = Holds(held)
    for holder in ("lives", "gone"):
        holds.put("whole", holder, "/somewhere")
    again = Volumes(root, held)
    await again.sweep(["lives"])
    assert sorted(place.name for place in root.iterdir()) == ["unreadable", "whole"]
    assert Holds(held).of("whole") == {"lives": "/somewhere"}
    assert [volume.name for volume in again.all()] == ["whole"]


def test_holds_are_kept_on_disk(tmp_path: Path) -> None:
    holds = Holds(tmp_path)
    holds.put("vol", "c1")
    holds.put("vol", "c1", "/there")
    holds.put("vol", "c2")
    holds.put("other", "c1", "/elsewhere")
    again = Holds(tmp_path)
    assert (again.of("vol"), again.mountpoint("vol")) == ({"c1": "/there", "c2": ""}, "/there")
    assert (sorted(again.by("c1")), again.holders()) == (["other", "vol"], {"c1", "c2"})
    again.drop("vol", "c1")
    again.drop("vol", "c2")
    again.drop("vol", "c2")
    assert [place.name for place in tmp_path.iterdir()] == ["other"]
    assert Holds(tmp_path).of("vol") == {}


async def test_what_goes_with_a_container_on_its_way_goes_after_a_kill_too(tmp_path: Path) -> None:
    """One that was being made, and one that was being removed with its volumes; what others use stays."""
    root, held = tmp_path / "volumes", tmp_path / "held"
    killed = Volumes(root, held)
    theirs = [await killed.create(claim=each) for each in ("half-made", "made", "removed", "borrowed")]
    named = await killed.create("named", claim="half-made")
    for each in ("removed", "borrowed"):
        killed.settle(each)
    killed.doom("removed", [theirs[2].name])
    killed.doom("borrowed", [theirs[3].name])
    assert killed.is_doomed("removed") and not killed.is_doomed("unheard-of")
    again = Volumes(root, held, users=lambda name: ["another"] if name == theirs[3].name else [])
    await again.take_up(lambda container: container == "made")
    assert {each.name for each in again.all()} == {theirs[1].name, theirs[3].name, named.name}
    assert not any(again.is_doomed(each) for each in ("half-made", "made", "removed", "borrowed"))
    await Volumes(root, held).take_up(lambda container: False)  # nothing is left to be taken up
    assert len(again.all()) == 3
