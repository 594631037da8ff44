"""Flags, filters and labels of queries."""

import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.query import is_on, labels_match, parse_filters


@pytest.mark.parametrize(("value", "on"), [
    ("1", True), ("true", True), ("yes", True), ("", False), ("0", False), ("No", False), (" false ", False),
    ("none", False)])
def test_flags(value, on):
    assert is_on(value) is on


@pytest.mark.parametrize(("raw", "found"), [
    ("", {}), ('{"label":["a=b"]}', {"label": ["a=b"]}), ('{"label":{"a=b":true,"c":false}}', {"label": ["a=b"]})])
def test_filters(raw, found):
    assert parse_filters(raw, frozenset({"label"})) == found


@pytest.mark.parametrize(("raw", "says"), [
    ("{", "invalid filter"), ("[]", "invalid filter"), ("[" * 100_000, "invalid filter"),
    ('{"x":["1"]}', "invalid filter 'x'")])
def test_filters_that_are_refused(raw, says):
    with pytest.raises(InvalidArgument, match=says):
        parse_filters(raw, frozenset({"label"}))


@pytest.mark.parametrize(("wanted", "match"), [
    ([], True), (["a"], True), (["a=b"], True), (["a=c"], False), (["x"], False)])
def test_labels(wanted, match):
    assert labels_match(wanted, {"a": "b"}) is match
