"""What agents report, sorted, batched and acknowledged."""

import math

import pytest

from shoal.api.objects import NodeDescription, NodeStatus, TaskStatus
from shoal.api.states import NodeState, TaskState
from shoal.manager.dispatcher.statuses import MAX_ACKS, MAX_TEXT, StatusQueue, hear
from shoal.manager.store.changes import SetNodeStatus, SetTaskStatus
from tests.unit.manager.dispatcher.records import Cluster, node, task

S = TaskState


def status(state: TaskState, **fields) -> TaskStatus:
    return TaskStatus(state=state, timestamp=1.0, **fields)


@pytest.mark.parametrize(
    ("updates", "news", "refused"),
    [
        pytest.param([("t1", S.RUNNING)], [("t1", S.RUNNING)], [], id="news"),
        pytest.param([("t1", S.READY)], [], [], id="lower-is-no-error"),
        pytest.param([("t9", S.RUNNING)], [], [], id="a-task-that-is-gone-is-no-error"),
        pytest.param([("t2", S.RUNNING)], [], ["t2"], id="another-node-s"),
        pytest.param([("t1", S.ORPHANED)], [], ["t1"], id="only-managers-orphan"),
        pytest.param([("t1", S.REMOVE)], [], ["t1"], id="no-observed-state"),
        pytest.param([("t3", S.PENDING)], [], ["t3"], id="never-an-agent-s"),
        pytest.param([("t1", S.RUNNING), ("t1", S.FAILED)], [("t1", S.FAILED)], [], id="the-newest-of-a-task"),
        pytest.param([("t1", S.FAILED), ("t1", S.RUNNING)], [("t1", S.FAILED)], [], id="never-back"),
        pytest.param([("t2", S.FAILED), ("t3", S.ACCEPTED)], [("t3", S.ACCEPTED)], ["t2"], id="the-rest-counts"),
    ],
)
def test_what_is_news(updates, news, refused):
    view = Cluster(node("n1"), node("n2"), task("t1", state=S.STARTING), task("t2", "n2"), task("t3")).view
    found = hear(view, "n1", [(task_id, status(state)) for task_id, state in updates])
    assert [(task_id, each.state) for task_id, each in found.news] == news
    assert list(found.refused) == refused


def test_what_cannot_be_stored_is_cut():
    view = Cluster(node("n1"), task("t1")).view
    wild = TaskStatus(state=S.FAILED, timestamp=math.nan, message="m" * 9999, err="e" * 9999)
    ((_, stored),) = hear(view, "n1", [("t1", wild)]).news
    assert (len(stored.message), len(stored.err), stored.timestamp) == (MAX_TEXT, MAX_TEXT, 0.0)


def changes(batch):
    return [(each.id, each.status.state) for each in batch.changes if isinstance(each, SetTaskStatus)]


def test_a_message_is_acknowledged_when_all_of_it_is_committed():
    queue = StatusQueue()
    assert not queue.add("s1", 1, [("t1", status(S.ACCEPTED)), ("t2", status(S.ACCEPTED))])
    assert not queue.add("s2", 7, [("t3", status(S.RUNNING))])
    first = queue.take(1)
    assert changes(first) == [("t1", S.ACCEPTED)] and queue.committed(first.mark) == []
    second = queue.take(10)
    assert queue.committed(second.mark) == [("s1", 1), ("s2", 7)]
    assert not queue
    assert queue.add("s1", 2, []), "nothing of it waits"


def test_a_newer_status_takes_the_older_one_s_place():
    queue = StatusQueue()
    queue.add("s1", 1, [("t1", status(S.ACCEPTED)), ("t2", status(S.ACCEPTED))])
    queue.add("s1", 2, [("t1", status(S.RUNNING))])
    queue.add("s1", 3, [("t1", status(S.STARTING))])
    batch = queue.take(10)
    assert changes(batch) == [("t1", S.RUNNING), ("t2", S.ACCEPTED)]
    assert queue.committed(batch.mark) == [("s1", 3)]


def test_what_comes_while_a_batch_is_under_way_waits_for_the_next():
    queue = StatusQueue()
    queue.add("s1", 1, [("t1", status(S.ACCEPTED))])
    under_way = queue.take(10)
    assert not queue.add("s1", 2, [("t1", status(S.RUNNING))])
    assert not queue.add("s2", 1, []), "what it knows to be committed may be under way"
    assert queue.committed(under_way.mark) == [("s1", 1)]
    assert queue.committed(queue.take(10).mark) == [("s1", 2), ("s2", 1)]


def test_acknowledgements_are_bounded():
    queue = StatusQueue()
    for number in range(1, 10 * MAX_ACKS):
        queue.add("s1", number, [(f"t{number}", status(S.ACCEPTED))])
    acked = []
    while queue:
        acked += queue.committed(queue.take(1).mark)
    assert acked[-1] == ("s1", 10 * MAX_ACKS - 1) and len(acked) == MAX_ACKS


def test_nodes_go_first_and_the_newest_counts():
    queue = StatusQueue()
    queue.add("s1", 1, [("t1", status(S.ACCEPTED))])
    ready, down = NodeStatus(state=NodeState.READY), NodeStatus(state=NodeState.DOWN)
    queue.add_node(SetNodeStatus(id="n1", status=ready, description=NodeDescription(hostname="h")))
    queue.add_node(SetNodeStatus(id="n1", status=down))
    (first,) = queue.take(1).changes
    assert first == SetNodeStatus(id="n1", status=down, description=NodeDescription(hostname="h"))
    assert changes(queue.take(1)) == [("t1", S.ACCEPTED)]


def test_what_is_under_way_of_a_node_is_known_until_it_is_committed():
    queue = StatusQueue()
    down = SetNodeStatus(id="n1", status=NodeStatus(state=NodeState.DOWN))
    queue.add_node(down)
    batch = queue.take(10)
    assert queue.node("n1") == down
    queue.committed(batch.mark)
    assert queue.node("n1") is None


def test_a_session_that_is_over_is_not_answered():
    queue = StatusQueue()
    queue.add("s1", 1, [("t1", status(S.ACCEPTED))])
    queue.forget("s1")
    batch = queue.take(10)
    assert changes(batch) == [("t1", S.ACCEPTED)] and queue.committed(batch.mark) == []
