"""Whom a host gives a blob to, whom it asks for one, and what it tells of its images."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shoal.api.messages import HeldImage, HeldImages
from shoal.worker.peers.choice import MOST_ASKS, MOST_HOSTS, Choice
from shoal.worker.peers.fanout import MEMORY_S, WIDTH, FanOut
from shoal.worker.peers.held import news
from shoal.worker.peers.taking import Pace

BLOB = "sha256:" + "a" * 64


# --- giving ---


def given_to(*hosts: str) -> FanOut:
    fanout = FanOut()
    for host in hosts:
        fanout.begun(BLOB, host, 0)
    return fanout


def test_who_got_a_blob_is_named_to_others():
    fanout = given_to("a")
    assert fanout.ask_instead(BLOB, "c", (), 1) == ("a",)
    assert fanout.ask_instead("sha256:other", "c", (), 1) == ()
    assert fanout.ask_instead(BLOB, "a", (), 1) == ()  # who got it and asks again is given it


def test_whom_a_host_sent_is_given_it_until_two_have_it():
    assert given_to("a").ask_instead(BLOB, "c", (), 1, sent=True) == ()
    assert set(given_to("a", "b").ask_instead(BLOB, "c", (), 1, sent=True)) == {"a", "b"}


def test_who_failed_the_asker_is_not_named_to_it():
    fanout = given_to("a", "b")
    assert fanout.ask_instead(BLOB, "c", {"a"}, 1) == ("b",)
    assert fanout.ask_instead(BLOB, "c", {"a", "b"}, 1) == ()
    assert set(fanout.ask_instead(BLOB, "d", (), 1)) == {"a", "b"}


def test_what_was_cut_does_not_count_and_what_is_long_ago_neither():
    fanout = given_to("a", "b")
    fanout.cut(BLOB, "a")
    assert fanout.ask_instead(BLOB, "c", (), 1) == ("b",)
    fanout.begun(BLOB, "c", 1)
    assert fanout.ask_instead(BLOB, "d", (), 2) == ("b", "c")
    assert fanout.ask_instead(BLOB, "d", (), MEMORY_S + 0.5) == ("c",)
    assert fanout.ask_instead(BLOB, "a", (), MEMORY_S + 2) == ()


@given(st.integers(2, 60), st.integers(0, 1 << 30))
def test_many_who_want_it_cost_the_one_who_has_it_one_copy_and_others_two(askers, seed):
    """Whoever is named has it, or will: asked in any order, each gets it."""
    random = Random(seed)
    hosts = {f"h{number}": FanOut() for number in range(askers + 1)}
    given = dict.fromkeys(hosts, 0)
    for asker in list(hosts)[1:]:
        choice = Choice(["h0"], set())
        while (host := choice.next()) is not None:
            if others := hosts[host].ask_instead(BLOB, asker, choice.failed, 0.0, sent=host in choice.sent):
                choice.sent_on(host, random.sample(others, len(others)))
                continue
            hosts[host].begun(BLOB, asker, 0.0)
            given[host] += 1
            break
        assert host is not None
    assert given["h0"] == 1
    assert max(given.values()) <= WIDTH
    assert sum(given.values()) == askers


# --- taking ---


def test_hosts_are_asked_in_turn_and_no_more_once_lost():
    choice = Choice(["a", "b"], set())
    assert choice.next() == "a"
    assert choice.has_other
    choice.lost("a")
    assert choice.next() == "b"
    assert not choice.has_other
    choice.again("b")
    assert choice.next() == "b"
    choice.lost("b")
    assert choice.next() is None and choice.failed == {"a", "b"}


def test_who_sends_on_is_asked_again_after_those_it_named():
    choice = Choice(["seed"], set())
    assert choice.next() == "seed"
    choice.sent_on("seed", ["a", "b"])
    assert choice.next() == "a"
    choice.lost("a")
    assert choice.next() == "b"
    choice.lost("b")
    assert choice.next() == "seed"
    assert choice.failed == {"a", "b"}
    choice.sent_on("seed", ["a", "b"])  # it insists: it has nothing for us
    assert choice.next() is None


def test_who_lied_about_one_blob_is_asked_for_no_other():
    banned: set[str] = set()
    first, second = Choice(["a", "b"], banned), Choice(["a", "b"], banned)
    first.drop("a")
    assert first.next() == "b" and second.next() == "b"
    assert first.failed == second.failed == {"a"}  # so that nobody names it to us


def test_hosts_that_name_each_other_or_thousands_are_asked_so_often_and_no_more():
    choice = Choice(["a"], set())
    asked = []
    while (host := choice.next()) is not None:
        asked.append(host)
        choice.sent_on(host, [f"x{number}" for number in range(1000) if f"x{number}" != host])
    assert len(set(asked)) <= MOST_HOSTS and len(asked) <= MOST_ASKS


def test_slow_is_less_than_the_least_rate():
    pace = Pace(least_rate=100, over_s=10.0)
    assert pace.is_slow(999, 10.0)
    assert not pace.is_slow(1000, 10.0)
    assert not pace.is_slow(0, 9.9)  # too soon to say


# --- telling ---


def held(letter: str, *names: str) -> HeldImage:
    return HeldImage(manifest=f"sha256:{letter * 64}", names=names)


def test_all_is_told_first_then_what_changed():
    one, two, renamed = held("a", "x"), held("b", "y"), held("b", "z")
    assert news(None, {}) == HeldImages(complete=True)
    assert news(None, {one.manifest: one}) == HeldImages(complete=True, held=(one,))
    assert news({one.manifest: one}, {one.manifest: one}) is None
    assert news({one.manifest: one, two.manifest: two}, {two.manifest: renamed}) == HeldImages(
        held=(renamed,), gone=(one.manifest,))
