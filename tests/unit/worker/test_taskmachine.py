"""What the task machine decides, as a table of facts; and what always holds of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.api.states import TaskState as S
from shoal.worker.taskmachine import RELEASE_S, Action, Health, Local, Phase, Seen, Step, exit_error, found, step

ABSENT, CREATED, RUNNING = Seen(), Seen(phase=Phase.CREATED), Seen(phase=Phase.RUNNING)


def exited(code: int = 0, error: str = "") -> Seen:
    return Seen(phase=Phase.EXITED, exit_code=code, error=error)


def local(state: S, seen: Seen = ABSENT, desired: S = S.RUNNING, **more: object) -> Local:
    return Local(state=state, seen=seen, desired=desired, **more)  # type: ignore[arg-type]


def settle(start: Local, now: float = 0.0) -> Step:
    """Steps until nothing changes or something is done."""
    here = start
    for _ in range(20):
        following = step(here, now)
        if following.action is not None or following.forget or following.local == here:
            return following
        here = following.local
    raise AssertionError(f"the machine never comes to rest from {start}")


@pytest.mark.parametrize(
    ("start", "state", "action", "error"),
    [
        pytest.param(local(S.ASSIGNED), S.PREPARING, Action.PREPARE, "", id="a new task is accepted and prepared"),
        pytest.param(local(S.ASSIGNED, desired=S.READY), S.PREPARING, Action.PREPARE, "", id="also one that waits"),
        pytest.param(local(S.PREPARING, CREATED), S.STARTING, Action.START, "", id="prepared starts"),
        pytest.param(local(S.PREPARING, CREATED, S.READY), S.READY, None, "", id="prepared waits for RUNNING"),
        pytest.param(local(S.READY, CREATED, S.READY), S.READY, None, "", id="and goes on waiting"),
        pytest.param(local(S.STARTING, RUNNING), S.RUNNING, None, "", id="started runs"),
        pytest.param(local(S.STARTING, Seen(phase=Phase.RUNNING, health=Health.STARTING)), S.STARTING, None, "",
                     id="waits for its health check"),
        pytest.param(local(S.STARTING, Seen(phase=Phase.RUNNING, health=Health.HEALTHY)), S.RUNNING, None, "",
                     id="healthy runs"),
        pytest.param(local(S.RUNNING, Seen(phase=Phase.RUNNING, health=Health.UNHEALTHY)), S.RUNNING, Action.STOP, "",
                     id="unhealthy is stopped at once"),
        pytest.param(local(S.RUNNING, exited(137), sick=True), S.FAILED, None,
                     "task: non-zero exit (137): dockerexec: unhealthy container", id="unhealthy has failed"),
        pytest.param(local(S.RUNNING, exited(0)), S.COMPLETE, None, "", id="exit 0 is complete"),
        pytest.param(local(S.RUNNING, exited(1)), S.FAILED, None, "task: non-zero exit (1)", id="exit 1 failed"),
        pytest.param(local(S.STARTING, exited(3)), S.FAILED, None, "task: non-zero exit (3)", id="ended at once"),
        pytest.param(local(S.RUNNING, ABSENT), S.FAILED, None, "its container was removed", id="removed by hand"),
        pytest.param(local(S.PREPARING, failed=Action.PREPARE, error="No such image: web:1"), S.REJECTED, None,
                     "No such image: web:1", id="no image is a rejection"),
        pytest.param(local(S.STARTING, CREATED, failed=Action.START, error="no such file"), S.FAILED, None,
                     "no such file", id="a failed start"),
        pytest.param(local(S.ASSIGNED, desired=S.SHUTDOWN), S.SHUTDOWN, None, "", id="shut down before it began"),
        pytest.param(local(S.READY, CREATED, S.SHUTDOWN), S.SHUTDOWN, None, "", id="shut down before it started"),
        pytest.param(local(S.RUNNING, RUNNING, S.SHUTDOWN, released=True), S.RUNNING, Action.STOP, "",
                     id="stopped once released"),
        pytest.param(local(S.RUNNING, RUNNING, S.SHUTDOWN), S.RUNNING, None, "", id="not before its release"),
        pytest.param(local(S.RUNNING, exited(143), S.SHUTDOWN, stopping_since=0.0), S.SHUTDOWN, None, "",
                     id="stopped is shut down, whatever its exit code"),
        pytest.param(local(S.RUNNING, exited(1), S.SHUTDOWN), S.FAILED, None, "task: non-zero exit (1)",
                     id="what failed by itself has failed"),
        pytest.param(local(S.FAILED, exited(1), S.REMOVE), S.FAILED, Action.REMOVE, "", id="removed when wanted"),
        pytest.param(local(S.FAILED, exited(1), S.SHUTDOWN), S.FAILED, None, "", id="history keeps its container"),
        pytest.param(local(S.ORPHANED, RUNNING, S.SHUTDOWN, released=True), S.ORPHANED, Action.STOP, "",
                     id="an orphan is stopped"),
        pytest.param(local(S.RUNNING, RUNNING, busy=Action.STOP), S.RUNNING, None, "", id="one thing at a time"),
    ],
)
def test_steps(start: Local, state: S, action: Action | None, error: str) -> None:
    before = start.state
    seen_error = ""
    here = start
    for _ in range(20):
        following = step(here, 0.0)
        if following.local.state is not before:
            before, seen_error = following.local.state, following.error
        if following.action is not None or following.local == here:
            break
        here = following.local
    assert (following.local.state, following.action, seen_error) == (state, action, error)


def test_stop_waits_for_its_release_two_seconds_at_most() -> None:
    first = step(local(S.RUNNING, RUNNING, S.SHUTDOWN), 10.0)
    assert (first.action, first.wake_at) == (None, 10.0 + RELEASE_S)
    assert step(first.local, 11.9).action is None
    assert step(first.local, 12.0).action is Action.STOP
    assert step(msgspec.structs.replace(first.local, released=True), 10.1).action is Action.STOP


def test_a_task_that_nobody_has_any_more_is_stopped_removed_and_forgotten() -> None:
    here = local(S.RUNNING, RUNNING, gone=True, released=True)
    stop = settle(here)
    assert stop.action is Action.STOP
    remove = settle(msgspec.structs.replace(stop.local, busy=None, seen=exited(143)))
    assert remove.action is Action.REMOVE
    assert settle(msgspec.structs.replace(remove.local, busy=None, seen=ABSENT)).forget


@pytest.mark.parametrize(
    ("reported", "seen", "state"),
    [
        pytest.param(S.RUNNING, RUNNING, S.RUNNING, id="runs on"),
        pytest.param(S.RUNNING, exited(2), S.FAILED, id="its exit is not lost"),
        pytest.param(S.STARTING, exited(0), S.COMPLETE, id="nor a good one"),
        pytest.param(S.RUNNING, ABSENT, S.FAILED, id="never started again by guess"),
        pytest.param(S.FAILED, ABSENT, S.FAILED, id="what ended stays ended"),
        pytest.param(S.PREPARING, ABSENT, S.PREPARING, id="preparing begins again"),
        pytest.param(S.READY, CREATED, S.STARTING, id="prepared goes on"),
    ],
)
def test_after_a_restart(reported: S, seen: Seen, state: S) -> None:
    assert settle(found(S.RUNNING, reported, seen)).local.state is state


def test_exit_errors_are_worded_as_dockers() -> None:
    assert exit_error(1) == "task: non-zero exit (1)"


LOCALS = st.builds(
    Local,
    desired=st.sampled_from([S.READY, S.RUNNING, S.SHUTDOWN, S.REMOVE]),
    state=st.sampled_from([S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING, S.COMPLETE,
                           S.SHUTDOWN, S.FAILED, S.REJECTED, S.ORPHANED]),
    seen=st.builds(Seen, phase=st.sampled_from(Phase), exit_code=st.integers(0, 255),
                   health=st.sampled_from(Health)),
    busy=st.sampled_from([None, *Action]),
    failed=st.sampled_from([None, *Action]),
    gone=st.booleans(),
    released=st.booleans(),
    sick=st.booleans(),
    stopping_since=st.sampled_from([None, 0.0, 5.0]),
)


@given(LOCALS, st.floats(0, 100))
@settings(max_examples=500)
def test_states_never_fall_and_the_ended_never_starts(start: Local, now: float) -> None:
    here = start
    for _ in range(20):
        following = step(here, now)
        assert following.local.state >= here.state
        if here.state.terminal:
            assert following.local.state is here.state
            assert following.action in (None, Action.STOP, Action.REMOVE)
        if here.busy is not None:
            assert following.action is None
        if following.action is not None or following.forget or following.local == here:
            return
        here = following.local
    raise AssertionError("the machine never comes to rest")


@given(LOCALS, st.lists(st.sampled_from(["ok", "exit", "fail"]), max_size=30))
@settings(max_examples=300)
def test_converges_once_actions_succeed(start: Local, luck: list[str]) -> None:
    """An obedient executor brings any task to what is wanted of it, or to an end."""
    here, now, fates = start, 0.0, iter(luck)
    for _ in range(200):
        following = step(here, now)
        if following.forget:
            return
        following_local = following.local
        action = following.action or following_local.busy
        if action is not None:
            following_local = act(following_local, action, next(fates, "ok"))
        elif following.wake_at is not None:
            now = following.wake_at
        elif following_local == here:
            if here.failed in (Action.STOP, Action.REMOVE):
                following_local = msgspec.structs.replace(here, failed=None)  # tried again after a while
            elif here.seen.phase is Phase.RUNNING and here.seen.health is Health.STARTING:
                seen = msgspec.structs.replace(here.seen, health=Health.HEALTHY)
                following_local = msgspec.structs.replace(here, seen=seen)
            else:
                break
        here = following_local
    assert here.state.terminal or here.state in (S.READY, S.RUNNING), here
    if here.desired > S.RUNNING or here.gone:
        assert here.state.terminal
        assert here.seen.phase is not Phase.RUNNING


def act(here: Local, action: Action, fate: str) -> Local:
    if fate == "fail":
        return msgspec.structs.replace(here, busy=None, failed=action, error="no")
    phase = {Action.PREPARE: Phase.CREATED, Action.START: Phase.RUNNING, Action.STOP: Phase.EXITED,
             Action.REMOVE: Phase.ABSENT}[action]
    if action is Action.START and fate == "exit":
        phase = Phase.EXITED
    return msgspec.structs.replace(here, busy=None, failed=None, seen=Seen(phase=phase))
