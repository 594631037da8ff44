"""What a collection may take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.registry import collection
from shoal.registry.collection import Held
from shoal.registry.manifests import Manifest

OLD, YOUNG = 7200.0, 10.0
GRACE = 3600.0


def held(age_s=OLD, *, manifests=(), subject=None):
    return Held(Manifest("m", manifests=tuple(manifests), subject=subject), age_s)


@pytest.mark.parametrize(("there", "tagged", "gone"), [
    pytest.param({"a": held()}, [], {"a"}, id="no tag leads to it"),
    pytest.param({"a": held()}, ["a"], set(), id="tagged"),
    pytest.param({"a": held(YOUNG)}, [], set(), id="young"),
    pytest.param({"i": held(manifests=["a"]), "a": held(), "b": held()}, ["i"], {"b"}, id="of a tagged index"),
    pytest.param({"i": held(YOUNG, manifests=["a"]), "a": held()}, [], set(), id="of a young index"),
    pytest.param({"a": held(), "s": held(subject="a"), "t": held(subject="s")}, ["a"], set(),
                 id="signed, and that signed"),
    pytest.param({"s": held(subject="a")}, [], {"s"}, id="what it was about is gone"),
    pytest.param({"a": held(manifests=["b"]), "b": held(manifests=["a"])}, [], {"a", "b"}, id="a circle"),
    pytest.param({}, ["x"], set(), id="a tag that leads nowhere"),
])
def test_untagged(there, tagged, gone):
    assert collection.untagged(there, tagged, GRACE) == gone


letters = st.sampled_from("abcdef")


@given(st.dictionaries(letters, st.builds(
    held, st.sampled_from([OLD, YOUNG]), manifests=st.lists(letters, max_size=3), subject=st.none() | letters)),
    st.lists(letters))
def test_nothing_that_is_kept_loses_what_it_needs(there, tagged):
    kept = set(there) - collection.untagged(there, tagged, GRACE)
    assert kept >= set(there) & set(tagged)
    assert all(each in kept for one in kept for each in there[one].manifest.manifests if each in there)
    assert collection.untagged({each: there[each] for each in kept}, tagged, GRACE) == set()


def test_marked():
    manifests = {"a": {"m": Manifest("x", blobs=("b", "c"), subject="s"), "i": Manifest("x", manifests=("n",))}}
    assert collection.marked(manifests) == {"m", "b", "c", "i", "n"}


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_what_was_touched_after_the_marking_began_stays(touched, grace, since):
    assert not collection.may_go(min(touched, since), grace, since)
    assert collection.may_go(grace + since + collection.LEAST_GRACE_S, grace, since)
