"""What of the build cache goes."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.build.garbage import FOLDER, STEP, Policy, Record, condemned, kept_bytes
from shoal.engine.build.uses import Uses


def step(name: str, parent: str = "", **more) -> Record:
    return Record(**{"id": name, "kind": STEP, "description": f"RUN {name}", "parent": parent, "bytes": 10,
                     "last_used": 1.0, **more})


def gone(records: list[Record], free: int = 0, **policy) -> list[str]:
    return [record.id for record in condemned(records, Policy(**policy), free)]


CHAIN = [step("a", last_used=3.0), step("b", "a", last_used=3.0), step("c", "b", last_used=2.0)]


@pytest.mark.parametrize(("records", "policy", "wanted"), [
    pytest.param(CHAIN, {}, ["c", "b", "a"], id="what was built on goes last"),
    pytest.param(CHAIN, {"most_bytes": 20}, ["c"], id="the least recently used until there is little enough"),
    pytest.param(CHAIN, {"most_bytes": 30}, [], id="little enough"),
    pytest.param(CHAIN, {"reserved_bytes": 15}, ["c", "b"], id="a bound below"),
    pytest.param(CHAIN, {"least_free_bytes": 5}, ["c"], id="room on the disk"),
    pytest.param(CHAIN, {"not_since": 2.5}, ["c"], id="unused since then"),
    pytest.param(CHAIN, {"matching": {"id": "b"}}, [], id="another one stands on it"),
    pytest.param(CHAIN, {"matching": {"parent": "b"}}, ["c"], id="by parent"),
    pytest.param(CHAIN, {"matching": {"description": "RUN c"}}, ["c"], id="by description"),
    pytest.param(CHAIN, {"only": {"private": False}}, [], id="all are private"),
    pytest.param([step("a", in_use=True), step("b", shared=True)], {}, [], id="in use, or an image's"),
    pytest.param([step("a", in_use=True), step("b", shared=True)], {"everything": True}, ["b"], id="all"),
    pytest.param([step("a"), step("f", kind=FOLDER)], {"matching": {"type": FOLDER}}, ["f"], id="by type"),
    pytest.param([step("sha256:12ab")], {"matching": {"id": "12a"}}, ["sha256:12ab"], id="by the start of an id"),
    pytest.param([], {}, [], id="nothing"),
])
def test_condemned(records: list[Record], policy: dict, wanted: list[str]) -> None:
    assert gone(records, **policy) == wanted


def test_shared_bytes_are_not_counted() -> None:
    assert gone([step("a", shared=True, bytes=1000), step("b")], most_bytes=50) == []


@pytest.mark.parametrize(("policy", "free", "kept"), [
    ({}, 0, None), ({"most_bytes": 50}, 0, 50), ({"reserved_bytes": 30}, 0, 30), ({"least_free_bytes": 20}, 100, 100),
    ({"least_free_bytes": 20}, 5, 85), ({"least_free_bytes": 20, "most_bytes": 70}, 5, 70),
    ({"least_free_bytes": 500, "reserved_bytes": 40}, 5, 40),
])
def test_kept_bytes(policy: dict, free: int, kept: int | None) -> None:
    assert kept_bytes(100, Policy(**policy), free) == kept


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30), st.floats(0, 9), st.booleans(), st.booleans())),
       st.integers(1, 300))
def test_nothing_goes_that_is_needed_and_no_more_than_has_to(made, bound) -> None:
    records = [step(str(number), str(parent) if parent < number else "", bytes=size, last_used=used, in_use=busy,
                    shared=shared) for number, (parent, size, used, busy, shared) in enumerate(made)]
    found = condemned(records, Policy(most_bytes=bound), 0)
    left = [record for record in records if record not in found]
    assert not any(record.in_use or record.shared for record in found)
    ids = [record.id for record in found]
    assert not any(ids.index(record.id) < ids.index(other.id) for record in found for other in found
                   if other.parent == record.id)
    assert not {record.parent for record in left} & set(ids)
    private = sum(record.bytes for record in left if not record.shared)
    if found:
        assert private + found[-1].bytes > bound
    if private > bound:  # all that is left is needed, or something needed stands on it
        parents = {record.parent for record in left}
        assert all(record.in_use or record.shared or record.id in parents for record in left)


def test_uses_are_kept(tmp_path: Path) -> None:
    place, now = tmp_path / "uses.json", time.time()
    uses = Uses(place)
    uses.mark(["a", "b"], now)
    uses.mark(["a"], now + 1)
    uses.name("a", "/cache")
    uses.keep_only({"a"})
    uses.save()
    again = Uses(place)
    assert (again.of("a").last, again.of("a").count, again.of("a").name, again.of("a").created) == (
        now + 1, 2, "/cache", now)
    assert again.of("b", 5.0).last == 5.0
    place.write_text("{")
    assert Uses(place).of("a", 5.0).count == 0
