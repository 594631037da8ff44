"""What is in volumes: filled, found and measured; beside the daemon where they are mounted from elsewhere."""

from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.volumes import content


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """(volume, root)"""
    volume, root = tmp_path / "volume", tmp_path / "root"
    (root / "data/deep").mkdir(parents=True)
    (root / "data/deep/file").write_text("x")
    (root / "data/deep/file").chmod(0o640)
    (root / "data/link").symlink_to("deep/file")
    (root / "escape").symlink_to("/etc")
    (root / "file").write_text("no folder")
    volume.mkdir()
    return volume, root


@pytest.mark.parametrize("foreign", [False, True])
async def test_filled_once(places: tuple[Path, Path], foreign: bool) -> None:
    volume, root = places
    await content.fill(volume, root, "/data", foreign=foreign)
    assert ((volume / "deep/file").stat().st_mode & 0o777, (volume / "link").readlink()) == (0o640, Path("deep/file"))
    (volume / "deep/file").unlink()
    await content.fill(volume, root, "/data", foreign=foreign)
    assert not (volume / "deep/file").exists()


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("target", ["/missing", "/file", "/escape"])
async def test_nothing_to_fill_it_with(places: tuple[Path, Path], target: str, foreign: bool) -> None:
    """Nor does a link in the image lead out of it."""
    volume, root = places
    await content.fill(volume, root, target, foreign=foreign)
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("foreign", [False, True])
async def test_subpaths(places: tuple[Path, Path], foreign: bool) -> None:
    _, root = places
    assert await content.subpath(str(root), "data/deep", foreign=foreign) == f"{root}/data/deep"
    assert await content.subpath(str(root), "../../data", foreign=foreign) == f"{root}/data"
    for path in ("missing", "escape/passwd"):
        with pytest.raises(InvalidArgument, match="cannot access path"):
            await content.subpath(str(root), path, foreign=foreign)


async def test_what_fails_beside_the_daemon_is_told(places: tuple[Path, Path]) -> None:
    _, root = places
    with pytest.raises(ShoalError, match="cannot look into volume"):
        await content.fill(root / "missing", root, "/data", foreign=True)


def test_size(places: tuple[Path, Path]) -> None:
    """Links count for themselves, and lead nowhere."""
    _, root = places
    assert content.size_bytes(root) == len("x") + len("no folder") + len("deep/file") + len("/etc")
