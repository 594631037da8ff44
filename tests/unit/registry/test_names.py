"""The grammar that keeps paths inside the root."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.registry import names
from shoal.registry.errors import DigestInvalid, NameInvalid, TagInvalid
from shoal.registry.layout import Layout


@pytest.mark.parametrize("text", ["a", "library/busybox", "a.b_c__d---e/f0", "0/1/2", "a" * 255])
def test_good_repositories(text):
    assert names.repository(text) == text


@pytest.mark.parametrize("text", [
    "", "A", "a/", "/a", "a//b", "../a", "a/../b", "_a", "a/_manifests", "a..b", "a___b", "a\n", "a" * 256, "a/.b", "é",
])
def test_bad_repositories(text):
    with pytest.raises(NameInvalid):
        names.repository(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a/b", "a:b", "a" * 129, "a\n", ".."])
def test_bad_tags(text):
    with pytest.raises(TagInvalid):
        names.tag(text)


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32,
                                  "sha512:" + "a" * 64, "sha256:" + "a" * 64 + "\n"])
def test_bad_digests(text):
    with pytest.raises(DigestInvalid):
        names.digest(text)


@given(st.text(alphabet="ab/._-\n\0Z", max_size=12))
def test_what_is_taken_never_leaves_the_root(tmp_path_factory, text):
    try:
        name = names.repository(text)
    except NameInvalid:
        return
    top = tmp_path_factory.getbasetemp()
    found = Layout(top).uploads(name)
    assert found.resolve().is_relative_to(top.resolve())
    assert not any(part.startswith("_") for part in name.split("/"))
