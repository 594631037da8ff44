"""Lists and prunes of images: what the filters leave, and what is shown of it."""

import io
import os
import tarfile

import pytest

from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.imagefilters import listed, prunable
from shoal.daemon.http.imagewire import history_json, parse_platform_json, provides, shared_bytes
from shoal.engine.images.config import HistoryEntry, Image, ImageConfig
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.images import Images
from shoal.engine.storage.overlay2 import Overlay2

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")


def archive(name):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        made.addfile(tarfile.TarInfo(name))
    return target.getvalue()


@pytest.fixture
async def images(tmp_path):
    """old (two names) < base (none; step was made of it) < step < new, which has a digest besides."""
    made = Images(tmp_path / "images", Overlay2(tmp_path / "overlay2"))
    path = tmp_path / "layer.tar"
    for name, repository, label in (("old", "old", "a=1"), ("base", "", "a=2"), ("new", "example.org/team/new", "b=")):
        path.write_bytes(archive(name))
        image = await made.import_rootfs(path, repository=repository, tag="v1" if repository else "",
                                         changes=[f"LABEL {label}"])
        if name == "base":
            await made.commit(path, image.id, ImageConfig(labels={"step": "yes"}))
    await made.tag("old:v1", "other/name", "latest")
    return made


def names(found):
    return [(image.repo_tags or (next(iter(image.config.labels)),))[0] for image in found]


@needs_root
@pytest.mark.parametrize(("wanted", "expected"), [
    pytest.param({}, ["example.org/team/new:v1", "step", "old:v1"], id="steps are not shown"),
    pytest.param({"all": True}, ["example.org/team/new:v1", "step", "a", "old:v1"], id="all"),
    pytest.param({"dangling": ["true"]}, ["step"], id="dangling"),
    pytest.param({"dangling": ["true"], "all": True}, ["step"], id="dangling, all"),
    pytest.param({"dangling": ["0"]}, ["example.org/team/new:v1", "old:v1"], id="not dangling"),
    pytest.param({"label": ["a"]}, ["old:v1"], id="label"),
    pytest.param({"label": ["a=2"], "all": True}, ["a"], id="label with a value"),
    pytest.param({"before": ["example.org/team/new:v1"]}, ["step", "old:v1"], id="before"),
    pytest.param({"since": ["old:v1"]}, ["example.org/team/new:v1", "step"], id="since"),
    pytest.param({"since": ["old:v1"], "before": ["example.org/team/new:v1"]}, ["step"], id="between"),
    pytest.param({"until": ["1"]}, [], id="until long ago"),
    pytest.param({"until": ["0s"]}, ["example.org/team/new:v1", "step", "old:v1"], id="until now"),
    pytest.param({"reference": ["old"]}, ["old:v1"], id="a repository"),
    pytest.param({"reference": ["o*:v?"]}, ["old:v1"], id="a pattern"),
    pytest.param({"reference": ["*"]}, ["old:v1"], id="a star does not cross a slash"),
    pytest.param({"reference": ["*/*/*"]}, ["example.org/team/new:v1", "old:v1"], id="complete names match too"),
    pytest.param({"reference": ["docker.io/library/old"]}, ["old:v1"], id="a complete name"),
    pytest.param({"reference": ["*/name"]}, ["other/name:latest"], id="only the names that match are shown"),
    pytest.param({"reference": ["nothing"]}, [], id="no match"),
    pytest.param({"reference": []}, [], id="no pattern"),
])
async def test_filters_of_a_list(images, wanted, expected):
    steps = wanted.pop("all", False)
    assert names(listed(images, wanted, steps=steps)) == expected


@needs_root
@pytest.mark.parametrize(("wanted", "kind"), [
    ({"dangling": ["true", "false"]}, InvalidArgument), ({"dangling": ["maybe"]}, InvalidArgument),
    ({"dangling": []}, InvalidArgument), ({"until": ["whenever"]}, InvalidArgument),
    ({"reference": ["[a"]}, InvalidArgument), ({"before": ["nothing"]}, NotFound), ({"since": ["nothing"]}, NotFound),
])
async def test_filters_that_mean_nothing(images, wanted, kind):
    with pytest.raises(kind):
        listed(images, wanted, steps=False)


def image(created="2020-01-01T00:00:00Z", **labels):
    return Image(id="sha256:1", created=created, config=ImageConfig(labels=labels))


@pytest.mark.parametrize(("wanted", "found", "goes"), [
    ({}, image(), True),
    ({"label": ["a"]}, image(a="1"), True), ({"label": ["a=2"]}, image(a="1"), False),
    ({"label!": ["a"]}, image(a="1"), False), ({"label!": ["a"]}, image(b="1"), True),
    ({"label!": ["a=2"]}, image(a="1"), True), ({"label": ["a"], "label!": ["b"]}, image(a="1", b="1"), False),
    ({"until": ["2020-01-01T00:00:00Z"]}, image(), True), ({"until": ["2019-12-31T23:59:59Z"]}, image(), False),
    ({"until": ["1h"]}, image(), True),
])
def test_what_a_prune_takes(wanted, found, goes):
    assert prunable(wanted)(found) is goes


def test_a_prune_has_one_moment():
    with pytest.raises(InvalidArgument, match="more than one until filter specified"):
        prunable({"until": ["1h", "2h"]})


@needs_root
async def test_a_prune_takes_what_nobody_needs_and_says_so(images):
    events = []
    images.emit = lambda action, image_id, attributes: events.append((action, attributes))
    removals, freed = await images.prune(matches=prunable({"label!": ["step"]}))
    assert (removals, freed) == ([], 0)
    removals, _ = await images.prune()
    assert [bool(one.deleted) for one in removals if not one.layer] == [True, True]  # the step, and what it was made on
    assert [action for action, _ in events] == ["prune", "delete", "delete", "prune"]
    await images.prune(dangling_only=False)
    assert images.all() == []
    assert [action for action, _ in events][4:] == ["untag", "delete", "untag", "untag", "delete", "prune"]
    assert events[4][1] == {"b": "", "name": events[5][1]["name"]}


def test_layers_that_several_have():
    layers = {"a": ["x", "y"], "b": ["x", "z"], "c": ["w"]}
    assert shared_bytes(layers, {"x": 5, "y": 7, "z": 11, "w": 13}) == {"a": 5, "b": 5, "c": 0}


def test_history_names_what_is_here():
    entries = (HistoryEntry(created_by="one"), HistoryEntry(created_by="two", empty_layer=True),
               HistoryEntry(created_by="three"))
    top = Image(id="sha256:3", repo_tags=("app:1",), history=entries)
    rows = history_json(top, [10, 30], [top, Image(id="sha256:2")])
    assert [(row["CreatedBy"], row["Id"], row["Tags"], row["Size"]) for row in rows] == [
        ("three", "sha256:3", ["app:1"], 30), ("two", "sha256:2", None, 0), ("one", "<missing>", None, 10)]


def test_platforms():
    assert parse_platform_json("") is None
    assert parse_platform_json('{"os": "linux", "architecture": "arm", "variant": "v7"}') == Platform(
        "linux", "arm", "v7")
    for text in ("linux/arm", "{}", '{"os": "linux"}', '{"variant": "v7"}', "[]", '{"os": 5}', "[" * 10_000):
        with pytest.raises(InvalidArgument):
            parse_platform_json(text)
    assert provides(Image(id="x", architecture="amd64"), "linux/x86_64")
    assert not provides(Image(id="x", architecture="amd64"), "linux/arm64")
