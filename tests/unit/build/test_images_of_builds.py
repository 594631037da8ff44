"""What a build's image says of itself: its platform, and what is left of its history where it is squashed."""

import pytest

from shoal.api.errors import InvalidArgument, NotFound
from shoal.engine.build import platforms
from shoal.engine.build.args import platform_args
from shoal.engine.build.squash import merged
from shoal.engine.images.config import HistoryEntry, Image
from shoal.engine.images.distribution.manifests import Platform


@pytest.mark.parametrize("text", ["linux/arm64", "arm64", "linux/aarch64", "LINUX/ARM64"])
def test_asked(text: str) -> None:
    assert platforms.asked(text) == Platform("linux", "arm64")


@pytest.mark.parametrize("text", ["foobar", "windows/amd64", "linux/none", "linux/arm/v7/x", "a b"])
def test_what_no_image_is_for(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown operating system or architecture"):
        platforms.asked(text)


def test_the_other_platform_is_named() -> None:
    image = Image(id="x", architecture="s390x")
    platforms.check(image, "", "base")
    platforms.check(image, "linux/s390x", "base")
    with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/s390x"):
        platforms.check(image, "linux/arm64", "base")
    assert "binfmt_misc" in platforms.foreign(image)
    assert not platforms.foreign(Image(id="x", architecture=platforms.host().architecture))


def test_arguments() -> None:
    made = platform_args(Platform("linux", "arm", "v7"), Platform("linux", "amd64"))
    assert (made["TARGETPLATFORM"], made["TARGETVARIANT"]) == ("linux/arm/v7", "v7")
    assert (made["BUILDPLATFORM"], made["BUILDARCH"], made["BUILDVARIANT"]) == ("linux/amd64", "amd64", "")


def test_squashed_history_has_one_layer_for_all_that_was_done() -> None:
    before = HistoryEntry(created_by="base")
    base = Image(id="sha256:b", history=(before,), layers=("l0",))
    image = Image(id="sha256:i", layers=("l0", "l1", "l2"), history=(
        before, HistoryEntry(created_by="RUN"), HistoryEntry(created_by="ENV", empty_layer=True),
        HistoryEntry(created_by="COPY")))
    assert [(entry.created_by or entry.comment, entry.empty_layer) for entry in merged(image, base, "now").history] == [
        ("base", False), ("RUN", True), ("ENV", True), ("COPY", True), ("merge sha256:i to sha256:b", False)]
    assert merged(image, None, "now").history[-1].comment == "create new from sha256:i"
