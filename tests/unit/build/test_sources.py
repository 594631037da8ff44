"""What is hashed of a COPY's sources, and that it does not matter who read them."""

import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from shoal.engine.build import context
from shoal.engine.build.sources import select
from shoal.engine.storage.unpack import Digests

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="contexts are unpacked by root")


def archive(**files: str) -> BytesIO:
    target = BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("_", "/"))
            info.size = len(content)
            tar.addfile(info, BytesIO(content.encode()))
    target.seek(0)
    return target


def hashes(root: Path, digests: Digests) -> list[str]:
    return [source.hash for source in select(str(root), [".", "app/a", "b*"], digests=digests)]


def test_the_same_with_what_was_seen_on_the_way_and_without_it(tmp_path: Path) -> None:
    first = context.open_archive(archive(app_a="1", app_c="", bb="3"), tmp_path / "first")
    assert len(first.digests) == 3
    assert hashes(first.root, first.digests) == hashes(first.root, {})


def test_content_counts_and_only_where_it_differs(tmp_path: Path) -> None:
    one, same, other = (context.open_archive(archive(app_a=content, bb="3"), tmp_path / name)
                        for name, content in (("one", "1"), ("same", "1"), ("other", "2")))
    assert hashes(one.root, one.digests) == hashes(same.root, same.digests)
    whole, changed, unchanged = hashes(other.root, other.digests)
    assert whole != hashes(one.root, {})[0]
    assert changed != hashes(one.root, {})[1]
    assert unchanged == hashes(one.root, {})[2]


def test_what_was_seen_on_the_way_is_not_read_again(tmp_path: Path) -> None:
    made = context.open_archive(archive(bb="3"), tmp_path / "made")
    believed = dict.fromkeys(made.digests, b"another")
    assert select(str(made.root), ["bb"], digests=believed)[0].hash != select(str(made.root), ["bb"])[0].hash
