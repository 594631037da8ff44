"""Statuses are kept until they are committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.api.objects import TaskStatus
from shoal.api.states import TaskState
from shoal.worker.reporter import BATCH_S, Reporter

RUNNING, FAILED = TaskStatus(state=TaskState.RUNNING), TaskStatus(state=TaskState.FAILED)


def test_the_first_goes_out_at_once_and_the_next_are_gathered() -> None:
    reporter = Reporter()
    reporter.add("a", RUNNING)
    assert reporter.due_in(10.0) == 0
    first = reporter.flush(10.0)
    assert first is not None and first.updates == (("a", RUNNING),)
    reporter.add("b", RUNNING)
    assert reporter.flush(10.001) is None
    second = reporter.flush(10.0 + BATCH_S + 0.001)
    assert second is not None and second.number == first.number + 1


def test_unacknowledged_statuses_go_out_again_the_newest_of_each_task() -> None:
    reporter = Reporter()
    reporter.add("a", RUNNING)
    reporter.add("b", RUNNING)
    assert reporter.flush(0.0) is not None
    reporter.add("a", FAILED)
    reporter.reconnected()
    again = reporter.flush(0.0)
    assert again is not None and dict(again.updates) == {"a": FAILED, "b": RUNNING}
    reporter.acked(again.number)
    assert reporter.pending == 0


def test_an_old_acknowledgement_does_not_cover_what_came_after() -> None:
    reporter = Reporter()
    reporter.add("a", RUNNING)
    first = reporter.flush(0.0)
    reporter.add("a", FAILED)
    second = reporter.flush(1.0)
    assert first is not None and second is not None
    reporter.acked(first.number)
    assert reporter.pending == 1


@given(st.lists(st.sampled_from(["add", "flush", "ack", "reconnect"]), max_size=60))
def test_the_newest_status_is_always_acknowledged_or_kept(steps: list[str]) -> None:
    reporter, now, committed, newest = Reporter(), 0.0, {}, {}
    sent: list[tuple[int, tuple[tuple[str, TaskStatus], ...]]] = []
    for number, name in enumerate(steps):
        now += 1.0
        if name == "add":
            task_id, status = f"t{number % 3}", TaskStatus(state=TaskState.RUNNING, timestamp=now)
            newest[task_id] = status
            reporter.add(task_id, status)
        elif name == "flush" and (message := reporter.flush(now)) is not None:
            sent.append((message.number, message.updates))
        elif name == "ack" and sent:
            last = sent[-1][0]
            for _, updates in sent:
                committed.update(dict(updates))
            sent.clear()
            reporter.acked(last)
        elif name == "reconnect":
            sent.clear()
            reporter.reconnected()
    reporter.reconnected()
    rest = reporter.flush(now + 1)
    committed.update(dict(rest.updates) if rest is not None else {})
    assert committed == newest
