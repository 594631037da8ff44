"""What a container changed: an upper directory over two layers, made by hand."""

import os
import stat
from pathlib import Path

import pytest

from shoal.engine.storage.diff import changes
from shoal.engine.storage.unpack import OPAQUE_XATTR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are devices: needs root")


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


@pytest.fixture
def layers(tmp_path):
    """(upper, [top layer, base layer])"""
    upper, top, base = tmp_path / "upper", tmp_path / "top", tmp_path / "base"
    upper.mkdir()
    for name in ("etc/passwd", "etc/group", "bin/sh", "var/old/file"):
        write(base / name)
    write(top / "srv/page")
    whiteout(top / "bin/sh")
    (top / "var/old").mkdir(parents=True)
    os.setxattr(top / "var/old", OPAQUE_XATTR, b"y")
    return upper, [top, base]


def shown(upper, lower):
    return [f"{'CAD'[each.kind]} {each.path}" for each in changes(upper, lower)]


def test_nothing_written_is_nothing_changed(layers):
    assert shown(*layers) == []


def test_what_was_never_mounted_has_changed_nothing(layers, tmp_path):
    assert shown(tmp_path / "never", layers[1]) == []


def test_added_modified_deleted(layers):
    upper, lower = layers
    write(upper / "etc/passwd")
    write(upper / "etc/new")
    write(upper / "srv/more/deep")
    whiteout(upper / "etc/group")
    assert shown(upper, lower) == ["C /etc", "D /etc/group", "A /etc/new", "C /etc/passwd", "C /srv", "A /srv/more",
                                   "A /srv/more/deep"]


def test_what_an_upper_layer_hides_was_not_there(layers):
    upper, lower = layers
    write(upper / "bin/sh")
    write(upper / "var/old/file")
    whiteout(upper / "bin/never")
    assert shown(upper, lower) == ["C /bin", "A /bin/sh", "C /var", "C /var/old", "A /var/old/file"]


def test_what_a_start_makes_is_nobodys_change(layers):
    upper, lower = layers
    write(upper / "etc/hosts")
    (upper / "dev").mkdir()
    assert shown(upper, lower) == []
    write(upper / "etc/own")
    assert shown(upper, lower) == ["C /etc", "A /etc/own"]


def test_a_link_of_the_image_is_not_followed(layers, tmp_path):
    upper, lower = layers
    (lower[1] / "link").symlink_to(tmp_path)
    (upper / "link").symlink_to("elsewhere")
    assert shown(upper, lower) == ["C /link"]
