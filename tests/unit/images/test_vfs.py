"""The fallback storage driver: its trees are what OverlayFS shows, and its changes what that tells."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.storage.choose import choose, overlay_trial
from shoal.engine.storage.driver import ChangeKind, StorageDriver, chain_ids
from shoal.engine.storage.overlay2 import Overlay2
from shoal.engine.storage.vfs import Vfs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts: needs root")

Entry = tuple[str, str | bytes | None]
"""(name, content); None: a folder; text: a link to it."""

BASE: list[Entry] = [("etc", None), ("etc/passwd", b"root"), ("etc/group", b"g"), ("bin", None), ("bin/sh", b"#!"),
                     ("old", None), ("old/deep", None), ("old/deep/file", b"1"), ("old/file", b"2"), ("link", "/etc"),
                     ("was-file", b"x"), ("was-folder", None), ("was-folder/x", b"y")]


def layer(entries: list[Entry]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mtime, member.uid, member.gid = 1_000_000, 3, 4
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    stream.seek(0)
    return stream


def fill(driver: StorageDriver, layers: list[list[Entry]]) -> list[str]:
    chain = chain_ids([f"sha256:{number:064x}" for number in range(len(layers))])
    for chain_id, entries in zip(chain, layers, strict=True):
        driver.add_layer(chain_id, layer(entries))
    return chain


def view(root: Path) -> dict[str, object]:
    shown: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            found = path.lstat()
            what: object = None
            if stat.S_ISREG(found.st_mode):
                what = path.read_bytes()
            elif stat.S_ISLNK(found.st_mode):
                what = str(path.readlink())
            shown[str(path.relative_to(root))] = (stat.filemode(found.st_mode), found.st_uid, found.st_gid, what)
    return shown


@pytest.mark.parametrize("upper", [
    pytest.param([[("etc", None), ("etc/passwd", b"changed")]], id="changed"),
    pytest.param([[("etc", None), ("etc/.wh.passwd", b"")]], id="deleted"),
    pytest.param([[(".wh.old", b"")]], id="folder deleted"),
    pytest.param([[("old", None), ("old/.wh..wh..opq", b""), ("old/new", b"n")]], id="opaque, then what it brings"),
    pytest.param([[("old", None), ("old/new", b"n"), ("old/.wh..wh..opq", b"")]], id="what it brings, then opaque"),
    pytest.param([[("old", None), ("old/deep", None), ("old/deep/new", b"n"), ("old/.wh..wh..opq", b"")]],
                 id="brought deeper, then opaque"),
    pytest.param([[("was-file", None), ("was-file/x", b"1"), ("was-folder", b"file now")]], id="kinds changed"),
    pytest.param([[("link", None), ("link/x", b"1")]], id="a folder for a link"),
    pytest.param([[("etc", None), ("etc/.wh.passwd", b"")], [("etc", None), ("etc/passwd", b"again")]],
                 id="deleted and made again"),
    pytest.param([[(".wh.nothing", b""), ("etc", None), ("etc/.wh..wh.plnk", b"")]], id="whiteout of nothing"),
])
def test_the_same_as_overlay2(tmp_path: Path, upper: list[list[Entry]]) -> None:
    if overlay_trial(tmp_path):
        pytest.skip("OverlayFS cannot be mounted here")
    seen = []
    for driver in (Overlay2(tmp_path / "overlay2"), Vfs(tmp_path / "vfs")):
        chain = fill(driver, [BASE, *upper])
        try:
            seen.append(view(driver.mount("c1", chain)))
        finally:
            driver.unmount("c1")
    assert seen[0] == seen[1]


def test_folders_in_folders(tmp_path: Path) -> None:
    driver = Vfs(tmp_path)
    place = driver.mount("c1", fill(driver, [BASE])) / "old/deep"
    for _ in range(1200):
        place /= "d"
        place.mkdir()
    (place / "file").write_bytes(b"123")
    assert driver.written_bytes("c1") == 3
    kinds = {change.path: change.kind for change in driver.changes("c1")}
    assert kinds["/old"] is kinds["/old/deep"] is ChangeKind.MODIFIED
    assert kinds["/old/deep/d"] is ChangeKind.ADDED
    driver.remove("c1")


def test_life(tmp_path: Path) -> None:
    driver = Vfs(tmp_path)
    chain = fill(driver, [BASE, [("etc/passwd", b"changed")]])
    assert driver.layers() == {chain[0]: 11, chain[1]: 7}
    root = driver.mount("c1", chain)
    (root / "etc/passwd").write_text("mine alone")
    assert driver.mount("c1", chain) == root
    assert (driver.mount("c2", chain) / "etc/passwd").read_bytes() == b"changed"
    assert (sorted(driver.containers()), driver.layers_in_use()) == (["c1", "c2"], set(chain))
    assert driver.lower("c1") == chain
    assert driver.written_bytes("c1") == 10
    again = Vfs(tmp_path)
    assert (again.mount("c1", chain) / "etc/passwd").read_text() == "mine alone"
    driver.remove("c1")
    driver.remove("c1")
    driver.remove_layer(chain[1])
    assert (driver.containers(), driver.has_layer(chain[0]), driver.has_layer(chain[1])) == (["c2"], True, False)


def test_changes(tmp_path: Path) -> None:
    driver = Vfs(tmp_path)
    chain = fill(driver, [BASE])
    root = driver.mount("c1", chain)
    assert driver.changes("c1") == []
    for made in ("etc/hosts", "etc/resolv.conf"):
        (root / made).write_text("")
    (root / "dev").mkdir()
    assert driver.changes("c1") == []
    (root / "etc/passwd").write_text("longer")
    (root / "etc/group").unlink()
    (root / "new/deep").mkdir(parents=True)
    (root / "bin/sh").chmod(0o700)
    (root / "link").unlink()
    (root / "link").symlink_to("/bin")
    for name in ("old/deep/file", "old/file"):
        (root / name).unlink()
    for name in ("old/deep", "old"):
        (root / name).rmdir()
    assert [f"{'CAD'[change.kind]} {change.path}" for change in driver.changes("c1")] == [
        "C /bin", "C /bin/sh", "C /etc", "D /etc/group", "C /etc/passwd", "C /link", "A /new", "A /new/deep", "D /old"]


def test_layers_that_lead_outside_delete_nothing_there(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    driver = Vfs(tmp_path / "vfs")
    deleting: list[Entry] = [("escape/.wh.file", b""), ("escape/.wh..wh..opq", b"")]
    chain = fill(driver, [[("escape", str(outside))], deleting])
    with pytest.raises(InvalidArgument, match="which is no directory"):  # there is none of that name inside
        driver.mount("c1", chain)
    driver.remove_layer(chain[0])
    driver.add_layer(chain[0], layer([("escape", str(outside)), (f"{outside}/file".lstrip("/"), b"inside")]))
    root = driver.mount("c2", chain)
    assert not Path(f"{root}{outside}/file").exists()
    assert (outside / "file").read_text() == "precious"
    for name in ("../x", "a/../../x", ".wh..", ".wh."):
        with pytest.raises(InvalidArgument):
            driver.add_layer("sha256:" + "f" * 64, layer([(name, b"")]))
    assert not driver.has_layer("sha256:" + "f" * 64)
    assert list((tmp_path / "vfs/layers").glob("tmp-*")) == []


def test_choice(tmp_path: Path) -> None:
    works = not overlay_trial(tmp_path)
    assert choose(tmp_path).name == ("overlay2" if works else "vfs")
    fill(choose(tmp_path, "vfs"), [BASE])
    assert choose(tmp_path).name == "vfs", "what is there already stays"
    with pytest.raises(InvalidArgument, match="choose overlay2 or vfs"):
        choose(tmp_path, "zfs")
    assert sorted(each.name for each in tmp_path.iterdir()) == (["overlay2", "vfs"] if works else ["vfs"])


def test_choice_where_overlay_cannot_be(tmp_path: Path) -> None:
    """On top of an OverlayFS, as in a container."""
    if overlay_trial(tmp_path):
        pytest.skip("OverlayFS cannot be mounted here")
    driver = Overlay2(tmp_path / "below")
    inside = driver.mount("c1", fill(driver, [BASE])) / "data"
    inside.mkdir()
    try:
        assert overlay_trial(inside)
        assert choose(inside).name == "vfs"
        with pytest.raises(ShoalError, match="overlay2 does not work"):
            choose(inside, "overlay2")
    finally:
        driver.unmount("c1")
