"""What a host does next for one task. Pure: no clock, no container, no network.

    ASSIGNED → ACCEPTED → PREPARING → READY → STARTING → RUNNING → COMPLETE | FAILED
                              └→ REJECTED                  └→ SHUTDOWN (when wanted)

A task is one attempt: its state never falls, and what has ended never runs again.
`step` is level-triggered: it compares what is wanted with what is seen, so that
any event may be repeated, and a restarted daemon goes on where it finds itself.
Source of states and messages: SwarmKit, agent/exec.
"""

from __future__ import annotations

import enum

import msgspec

from shoal.api.states import TaskState

RELEASE_S = 2.0
"""A stop signal waits for its `Release` no longer than this."""

UNHEALTHY = "unhealthy container"


class Action(enum.StrEnum):
    """What the executor is asked to do. One at a time for each task."""

    PREPARE = "prepare"  # make the container
    START = "start"
    STOP = "stop"  # signal, grace, kill
    REMOVE = "remove"  # the container and what it wrote


class Phase(enum.StrEnum):
    """A container as it is seen."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class Health(enum.StrEnum):
    NONE = "none"  # it has no health check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the executor sees of a task's container."""

    phase: Phase = Phase.ABSENT
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""  # why it could not be started
    health: Health = Health.NONE


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `step` looks at."""

    desired: TaskState
    state: TaskState = TaskState.ASSIGNED
    seen: Seen = Seen()
    busy: Action | None = None  # an action is under way
    failed: Action | None = None  # the last action, which failed
    error: str = ""  # why
    gone: bool = False  # the managers no longer have it
    stopping_since: float | None = None  # when it was first seen that it has to stop
    released: bool = False  # every other host has taken it out
    sick: bool = False  # it is stopped because its health check failed


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What follows. Everything unset: wait for the next event (or for `wake_at`)."""

    local: Local
    message: str = ""  # of a new state
    error: str = ""
    action: Action | None = None
    wake_at: float | None = None
    forget: bool = False  # nothing is left of it


_FORWARD: dict[TaskState, tuple[TaskState, Action | None, str]] = {
    TaskState.ASSIGNED: (TaskState.ACCEPTED, None, "accepted"),
    TaskState.ACCEPTED: (TaskState.PREPARING, Action.PREPARE, "preparing"),
    TaskState.READY: (TaskState.STARTING, Action.START, "starting"),
}
"""On the way up: state → the next one, what is done with it, its message."""

_BROKEN: dict[Action, TaskState] = {Action.PREPARE: TaskState.REJECTED, Action.START: TaskState.FAILED}
"""Where a failed action leads."""


def step(local: Local, now: float) -> Step:
    """One step. Call it again until it changes nothing. `now`: a monotonic clock, seconds."""
    if local.busy is not None:
        return Step(local=local)
    if local.gone or local.desired >= TaskState.REMOVE:
        return _leave(local, now)
    if local.state.terminal:
        return _rest(local, now)
    if local.failed in _BROKEN:
        return _enter(local, _BROKEN[local.failed], local.failed.value + " failed", local.error)
    if local.desired > TaskState.RUNNING:
        return _shut_down(local, now)
    return _rise(local, now)


def found(desired: TaskState, reported: TaskState, seen: Seen) -> Local:
    """A task as a starting daemon finds it: its container says more than what was last reported."""
    if reported.terminal:
        return Local(desired=desired, state=reported, seen=seen)
    derived = {
        Phase.ABSENT: TaskState.ASSIGNED,
        Phase.CREATED: TaskState.READY,
        Phase.RUNNING: TaskState.STARTING,
        Phase.EXITED: TaskState.STARTING,
    }[seen.phase]
    if seen.phase is Phase.ABSENT and reported > TaskState.READY:
        return Local(desired=desired, state=reported, seen=seen)  # it had a container: see `_rise`
    return Local(desired=desired, state=derived, seen=seen)


def exit_error(exit_code: int, cause: str = "") -> str:
    """As Docker words it."""
    return f"task: non-zero exit ({exit_code})" + (f": {cause}" if cause else "")


def _rise(local: Local, now: float) -> Step:
    state, phase = local.state, local.seen.phase
    if state is TaskState.PREPARING:
        if phase is Phase.ABSENT:
            return _act(local, Action.PREPARE)
        return _enter(local, TaskState.READY, "prepared")
    if state in (TaskState.STARTING, TaskState.RUNNING):
        return _live(local, now)
    if state is TaskState.READY and (local.desired < TaskState.RUNNING):
        return Step(local=local)
    following, action, message = _FORWARD[state]
    if state is TaskState.READY and phase is Phase.ABSENT:
        return _enter(local, TaskState.FAILED, "starting", "its container was removed")
    return _enter(local, following, message, action=action)


def _live(local: Local, now: float) -> Step:
    """STARTING and RUNNING: the container leads."""
    seen = local.seen
    if seen.phase is Phase.ABSENT:
        return _enter(local, TaskState.FAILED, "finished", "its container was removed")
    if seen.phase is Phase.EXITED:
        return _ended(local)
    if seen.phase is Phase.CREATED:
        return _act(local, Action.START)
    if seen.health is Health.UNHEALTHY or local.sick:
        return _stop(msgspec.structs.replace(local, sick=True), now)
    if local.state is TaskState.STARTING and seen.health is not Health.STARTING:
        return _enter(local, TaskState.RUNNING, "started")
    return Step(local=local)


def _ended(local: Local) -> Step:
    seen = local.seen
    if local.sick:
        return _enter(local, TaskState.FAILED, "finished", exit_error(seen.exit_code, f"dockerexec: {UNHEALTHY}"))
    if seen.error:
        return _enter(local, TaskState.FAILED, "starting", seen.error)
    if seen.exit_code:
        return _enter(local, TaskState.FAILED, "finished", exit_error(seen.exit_code))
    return _enter(local, TaskState.COMPLETE, "finished")


def _shut_down(local: Local, now: float) -> Step:
    if local.seen.phase is Phase.RUNNING:
        return _stop(local, now)
    if local.state >= TaskState.STARTING and local.stopping_since is None and local.seen.phase is Phase.EXITED:
        return _ended(local)  # it ended by itself before anybody asked
    return _enter(local, TaskState.SHUTDOWN, "shutdown")


def _rest(local: Local, now: float) -> Step:
    """Ended: only a container that should not run is left to stop."""
    return _stop(local, now) if local.seen.phase is Phase.RUNNING else Step(local=local)


def _leave(local: Local, now: float) -> Step:
    """Nobody wants it any more: stop, say so while somebody listens, and remove."""
    if local.seen.phase is Phase.RUNNING:
        return _stop(local, now)
    if not local.gone and not local.state.terminal:
        return _enter(local, TaskState.SHUTDOWN, "shutdown")
    if local.seen.phase is not Phase.ABSENT and local.failed is not Action.REMOVE:
        return _act(local, Action.REMOVE)
    return Step(local=local, forget=local.gone)


def _stop(local: Local, now: float) -> Step:
    since = now if local.stopping_since is None else local.stopping_since
    local = msgspec.structs.replace(local, stopping_since=since)
    if not local.released and not local.sick and now < since + RELEASE_S:
        return Step(local=local, wake_at=since + RELEASE_S)
    if local.failed is Action.STOP:  # it could not be stopped: try again when something else happens
        return Step(local=local)
    return _act(local, Action.STOP)


def _act(local: Local, action: Action) -> Step:
    return Step(local=msgspec.structs.replace(local, busy=action, failed=None), action=action)


def _enter(local: Local, state: TaskState, message: str, error: str = "", action: Action | None = None) -> Step:
    following = msgspec.structs.replace(local, state=state, busy=action, failed=None, error="")
    return Step(local=following, message=message, error=error, action=action)
