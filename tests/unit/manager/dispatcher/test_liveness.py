"""Who is there, by lease."""

import pytest

from shoal.manager.dispatcher.liveness import ALIVE_S, GRACE_S, Leases, Verdict, admit


@pytest.mark.parametrize(
    ("renewals", "down_at"),
    [
        pytest.param([], 3.0, id="silent"),
        pytest.param([1.0], 4.0, id="renewed-once"),
        pytest.param([1.0, 2.0, 2.9], 5.9, id="renewed-thrice"),
    ],
)
def test_a_lease_runs_out_that_long_after_the_last_sign_of_life(renewals, down_at):
    leases = Leases(3.0)
    leases.open("n1", 0.0)
    for at in renewals:
        leases.renew("n1", at)
    expired, now = [], 0.0
    while not expired and (deadline := leases.deadline()) is not None:
        assert deadline >= now, "it is never asked twice for nothing"
        now = deadline
        assert leases.expired(now - 0.001) == []
        expired = leases.expired(now)
    assert (expired, now) == (["n1"], down_at)
    assert leases.deadline() is None and leases.expired(1e9) == []


def test_asking_costs_once_for_each_lease_however_often_it_is_renewed():
    leases = Leases(3.0)
    leases.open("n1", 0.0)
    for tick in range(1, 1000):
        leases.renew("n1", tick / 100)
    wakes = 0
    while leases.deadline() is not None:
        wakes += 1
        leases.expired(leases.deadline())
    assert wakes <= 3


def test_a_new_leader_gives_everybody_a_fresh_lease_and_grace():
    leases = Leases(3.0)
    leases.load(["n1", "n2"], 100.0)
    leases.open("n2", 101.0)
    leases.renew("n2", 104.0)
    assert leases.expired(100.0 + 3.0 + GRACE_S - 0.001) == []
    assert leases.expired(100.0 + 3.0 + GRACE_S) == ["n1"]
    assert leases.expired(107.0) == ["n2"]


def test_the_grace_is_over_with_the_first_session():
    leases = Leases(3.0)
    leases.load(["n1"], 100.0)
    leases.open("n1", 100.5)
    assert leases.deadline() == 103.5
    assert leases.expired(103.5) == ["n1"]
    leases.open("n1", 104.0)
    assert leases.expired(106.9) == [], "what was queued for the grace counts no more"
    assert leases.expired(107.0) == ["n1"] and leases.expired(1e9) == []


def test_a_sign_of_life_without_a_session_means_nothing():
    leases = Leases(3.0)
    leases.renew("n1", 1.0)
    assert leases.deadline() is None
    leases.open("n1", 1.0)
    assert leases.expired(4.0) == ["n1"]
    leases.renew("n1", 4.1)
    assert leases.deadline() is None


def test_removed_nodes_do_not_go_down():
    leases = Leases(3.0)
    leases.open("n1", 0.0)
    leases.forget("n1")
    assert leases.expired(10.0) == []
    leases.open("n1", 10.0)
    assert leases.expired(13.0) == ["n1"]


def test_another_length_takes_nothing_from_anybody():
    leases = Leases(3.0)
    leases.open("n1", 0.0)
    leases.set_lease(10.0, 1.0)
    assert leases.expired(10.9) == [] and leases.expired(11.0) == ["n1"]
    leases.open("n1", 20.0)
    leases.set_lease(1.0, 21.0)
    assert leases.expired(29.9) == []
    leases.renew("n1", 29.9)
    assert leases.expired(30.9) == ["n1"]


def test_what_the_manager_missed_itself_is_not_the_nodes_fault():
    leases = Leases(3.0)
    leases.open("n1", 0.0)
    leases.stalled(2.0)
    assert leases.expired(3.0) == [] and leases.expired(4.9) == [] and leases.expired(5.0) == ["n1"]


@pytest.mark.parametrize(
    ("current", "heard_ago", "presented", "verdict"),
    [
        pytest.param(None, 0.0, "", Verdict.WELCOME, id="first"),
        pytest.param(None, 0.0, "old", Verdict.WELCOME, id="back-after-its-end"),
        pytest.param("s1", 0.1, "s1", Verdict.REPLACES, id="same-agent-over-a-new-connection"),
        pytest.param("s1", 0.1, "", Verdict.REFUSED, id="cloned-disk"),
        pytest.param("s1", 0.1, "s0", Verdict.REFUSED, id="cloned-disk-that-had-a-session"),
        pytest.param("s1", ALIVE_S + 0.1, "", Verdict.REPLACES, id="rebooted-while-the-old-one-is-silent"),
        pytest.param("s1", ALIVE_S + 0.1, "s0", Verdict.REPLACES, id="old-one-is-dead"),
    ],
)
def test_two_sessions_of_one_node(current, heard_ago, presented, verdict):
    assert admit(current, 100.0 - heard_ago, presented, 100.0) is verdict
