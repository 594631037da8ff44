"""When tasks may be stopped."""

import pytest

from shoal.manager.dispatcher.release import RELEASE_S, Releases

TASKS = {"n1": ["t1", "t2"], "n2": ["t3"]}
ALL = {"n1": ("t1", "t2"), "n2": ("t3",)}


@pytest.mark.parametrize(
    ("waits", "said", "released_at"),
    [
        pytest.param({}, [], 0, id="nobody-to-wait-for"),
        pytest.param({"n1": 5, "n3": 2}, [("n1", 5), ("n3", 2)], 2, id="everybody-has-it"),
        pytest.param({"n1": 5, "n3": 2}, [("n3", 9), ("n1", 7)], 2, id="later-ones-count-too"),
        pytest.param({"n1": 5, "n3": 2}, [("n1", 4), ("n3", 2)], None, id="one-is-behind"),
        pytest.param({"n1": 5, "n3": 2}, [("n1", 5), ("n1", 6)], None, id="one-is-silent"),
        pytest.param({"n1": 5}, [("n4", 5), ("n1", 5)], 2, id="a-stranger-says-nothing"),
        pytest.param({"n1": 5, "n3": 2}, [("n1", 5), ("n3", None)], 2, id="a-session-that-ends-is-not-waited-for"),
    ],
)
def test_gate(waits, said, released_at):
    releases = Releases()
    answers = [releases.hold(TASKS, waits, 10.0)]
    for node_id, sequence in said:
        answers.append(releases.gone(node_id) if sequence is None else releases.applied(node_id, sequence))
    found = [number for number, answer in enumerate(answers) if answer]
    assert found == ([] if released_at is None else [released_at])
    if released_at is not None:
        assert answers[released_at] == ALL
        assert releases.deadline() is None and releases.due(1e9) == {}
    else:
        assert releases.deadline() == 10.0 + RELEASE_S
        assert releases.due(10.0 + RELEASE_S - 0.1) == {}
        assert releases.due(10.0 + RELEASE_S) == ALL
        assert releases.due(1e9) == {} and releases.deadline() is None


def test_holds_of_one_node_are_passed_one_by_one():
    releases = Releases()
    releases.hold({"n1": ["t1"]}, {"n2": 1}, 0.0)
    releases.hold({"n1": ["t2"]}, {"n2": 2}, 1.0)
    releases.hold({"n1": ["t3"]}, {"n2": 3, "n3": 1}, 1.5)
    assert releases.applied("n2", 1) == {"n1": ("t1",)}
    assert releases.deadline() == 1.0 + RELEASE_S
    assert releases.applied("n2", 3) == {"n1": ("t2",)}
    assert releases.due(1.5 + RELEASE_S) == {"n1": ("t3",)}
    assert releases.applied("n3", 1) == {}, "each is released once"


def test_a_new_session_s_numbers_are_others():
    releases = Releases()
    releases.hold({"n1": ["t1"]}, {"n2": 50, "n3": 1}, 0.0)
    assert releases.gone("n2") == {}
    releases.hold({"n1": ["t2"]}, {"n2": 2}, 0.1)
    assert releases.applied("n2", 2) == {"n1": ("t2",)}
    assert releases.applied("n3", 1) == {"n1": ("t1",)}


def test_a_node_that_never_answers_is_not_remembered_for_ever():
    releases = Releases()
    for second in range(100):
        releases.due(float(second))
        assert releases.hold({"n1": [f"t{second}"]}, {"n2": second}, float(second)) == {}
        assert len(releases) <= RELEASE_S + 1
