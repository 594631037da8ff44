"""Pages and content ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.registry import transfer
from shoal.registry.errors import PageInvalid, RangeInvalid, UploadInvalid


@given(st.sets(st.text("abc", min_size=1, max_size=4)).map(sorted), st.integers(1, 5))
def test_pages_joined_are_the_list(entries, n):
    found, last, more = [], "", True
    while more:
        part, more = transfer.page(entries, last, str(n), 100, 100)
        assert len(part) == n or not more
        found += part
        last = part[-1] if part else last
    assert found == entries


@pytest.mark.parametrize(("n", "expected"), [
    pytest.param("0", ([], False), id="none are wanted"),
    pytest.param("2", (["a", "b"], True), id="some"),
    pytest.param(None, (["a", "b", "c"], False), id="all"),
    pytest.param("99", (["a", "b", "c"], False), id="more than there are"),
])
def test_page(n, expected):
    assert transfer.page(["a", "b", "c"], "", n, 10, 10) == expected


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "", "9" * 10, "٣"])
def test_n_is_a_number(n):
    with pytest.raises(PageInvalid):
        transfer.page([], "", n, 10, 10)


def test_a_bound_holds_where_more_is_asked_for():
    assert transfer.page(["a", "b", "c"], "", "100", 1, 2) == (["a", "b"], True)


@pytest.mark.parametrize(("header", "length", "held"), [
    (None, 5, 3), ("0-4", 5, 0), ("bytes 3-7/*", 5, 3), ("3-7", None, 3),
])
def test_chunks_that_go_on(header, length, held):
    transfer.start_of(header, length, held)


@pytest.mark.parametrize(("header", "length", "held", "error"), [
    ("5-9", 5, 0, RangeInvalid), ("0-4", 5, 5, RangeInvalid), ("0-4", 6, 0, UploadInvalid), ("x", 1, 0, UploadInvalid),
    ("4-3", None, 4, UploadInvalid), ("-1-3", 4, 0, UploadInvalid),
])
def test_chunks_that_do_not(header, length, held, error):
    with pytest.raises(error):
        transfer.start_of(header, length, held)
