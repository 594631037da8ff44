"""Which hosts hold which images."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.api.errors import InvalidArgument
from shoal.api.messages import HeldImage, HeldImages
from shoal.api.reference import parse
from shoal.manager.dispatcher.holdings import MAX_IMAGES, MOST_HOLDERS, Holdings


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def image(letter: str, *names: str, **fields) -> HeldImage:
    return HeldImage(manifest=digest(letter), names=tuple(str(parse(name)) for name in names), **fields)


def holdings(**held: list[HeldImage]) -> Holdings:
    made = Holdings()
    for node_id, images in held.items():
        made.hear(node_id, HeldImages(complete=True, held=tuple(images)))
    return made


def test_an_image_is_found_by_name_manifest_and_index():
    made = holdings(n1=[image("a", "app", index=digest("f"))])
    for wanted, begin in (("app", "a"), (f"app@{digest('a')}", "a"), (f"other@{digest('f')}", "f")):
        found = made.find(parse(wanted), "n2", private=False)
        assert found is not None and (found.digest, found.node_ids) == (digest(begin), ("n1",))
    assert made.find(parse("app:2"), "n2", private=False) is None


def test_who_asks_is_not_named():
    assert holdings(n1=[image("a", "app")]).find(parse("app"), "n1", private=True) is None


def test_a_name_means_what_was_last_called_so():
    made = holdings(n1=[image("a", "app", tagged=1.0)], n2=[image("b", "app", tagged=2.0)], n3=[image("b", "app")])
    found = made.find(parse("app"), "n4", private=False)
    assert found is not None and found.digest == digest("b") and set(found.node_ids) == {"n2", "n3"}
    made.forget("n2")
    made.forget("n3")
    found = made.find(parse("app"), "n4", private=False)
    assert found is not None and found.digest == digest("a")
    made.hear("n2", HeldImages(held=(image("b", "app", tagged=2.0),)))
    assert made.manifests(parse("app")) == {digest("a"), digest("b")}


def test_private_images_are_for_those_who_use_them():
    made = holdings(n1=[image("a", "app", private=True)])
    assert made.find(parse("app"), "n2", private=False) is None
    found = made.find(parse("app"), "n2", private=True)
    assert found is not None and found.private


def test_differences_and_ends():
    made = holdings(n1=[image("a", "app"), image("b", "base")])
    made.hear("n1", HeldImages(held=(image("a", "app:2"),), gone=(digest("b"),)))
    assert made.find(parse("app"), "n2", private=False) is None
    assert made.find(parse("app:2"), "n2", private=False) is not None
    assert made.find(parse("base"), "n2", private=False) is None
    made.forget("n1")
    assert made.find(parse("app:2"), "n2", private=False) is None


def test_two_images_of_one_index():
    made = holdings(n1=[image("a", index=digest("f")), image("b", index=digest("f"))])
    for gone in ("b", "a"):
        assert made.find(parse(f"app@{digest('f')}"), "n2", private=False) is not None
        made.hear("n1", HeldImages(gone=(digest(gone),)))
    assert made.find(parse(f"app@{digest('f')}"), "n2", private=False) is None


def test_what_no_host_may_say():
    made = holdings(n1=[image("a", "app")])
    for wrong in (HeldImage(manifest="x"), image("b", *(f"app:{n}" for n in range(300))),
                  image("b", index="sha256:no")):
        with pytest.raises(InvalidArgument):
            made.hear("n1", HeldImages(held=(wrong,)))
    many = tuple(HeldImage(manifest=f"sha256:{number:064x}") for number in range(MAX_IMAGES))
    with pytest.raises(InvalidArgument):
        made.hear("n1", HeldImages(held=many))
    assert made.find(parse("app"), "n2", private=False) is not None


NODES, LETTERS, NAMES = st.sampled_from(["n1", "n2", "n3"]), "abc", ["app", "base", "db:9"]
IMAGES = st.builds(lambda letter, names, index: image(letter, *names, index=digest(index) if index else ""),
                   st.sampled_from(LETTERS), st.sets(st.sampled_from(NAMES)), st.sampled_from(["", "d", "e"]))
MESSAGES = st.builds(HeldImages, complete=st.booleans(),
                     held=st.lists(IMAGES, max_size=3, unique_by=lambda one: one.manifest).map(tuple),
                     gone=st.sets(st.sampled_from(LETTERS), max_size=2).map(lambda s: tuple(map(digest, s))))


@given(st.lists(st.tuples(NODES, MESSAGES), max_size=12))
def test_found_is_what_was_said_and_not_taken_back(said):
    made, model = Holdings(), {}
    for node_id, message in said:
        made.hear(node_id, message)
        known = {} if message.complete else model.get(node_id, {})
        known = {manifest: one for manifest, one in known.items() if manifest not in message.gone}
        model[node_id] = {**known, **{one.manifest: one for one in message.held}}
    for key in [f"app@{digest(letter)}" for letter in "abcde"] + NAMES:
        wanted = parse(key)
        having = {node_id for node_id, images in model.items() for one in images.values()
                  if (wanted.digest or str(wanted)) in (one.manifest, one.index, *one.names)}
        found = made.find(wanted, "nobody", private=True)
        named = set(found.node_ids) if found else set()
        if wanted.digest:
            assert named == having
        else:  # all that have what one of them calls so
            assert bool(named) == bool(having)
            assert all(found.digest in (one.manifest for one in model[node_id].values()) for node_id in named)


def test_thousands_who_ask_are_named_all_holders_in_turn():
    made = holdings(**{f"n{number}": [image("a", "app")] for number in range(1000)})
    named = [node_id for _ in range(250) for node_id in made.find(parse("app"), "n1000", private=False).node_ids]
    assert len(set(named)) == 1000 and len(named) == 250 * MOST_HOLDERS


def test_messages_survive_the_wire():
    message = HeldImages(complete=True, held=(image("a", "app", tagged=1.5),), gone=(digest("c"),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=HeldImages) == message
