"""Whether a container that ended is started again, and after how long. Pure.

Source: moby, daemon/restartmanager.
"""

from __future__ import annotations

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import RestartPolicy

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
RESET_AFTER_S = 10.0
"""A container that ran for so long starts anew with the first delay."""


def check(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raises InvalidArgument."""
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
                              "'on-failure', or 'unless-stopped'")
    if policy.max_retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.max_retries and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def wants_restart(policy: RestartPolicy, *, exit_code: int, restarts: int, manually_stopped: bool) -> bool:
    """Whether it is started again after an exit. `restarts`: how often that has been done already."""
    if manually_stopped:
        return False
    if policy.name == "on-failure":
        return exit_code != 0 and (policy.max_retries == 0 or restarts < policy.max_retries)
    return policy.name in ("always", "unless-stopped")


def wants_start(policy: RestartPolicy, *, manually_stopped: bool, exit_code: int, restarts: int) -> bool:
    """Whether a starting daemon starts it: `always` does even what was stopped by hand."""
    if policy.name == "always":
        return True
    return wants_restart(policy, exit_code=exit_code, restarts=restarts, manually_stopped=manually_stopped)


def next_delay(previous_s: float, ran_s: float) -> float:
    """The delay before the next start; `previous_s` 0: it is the first."""
    if previous_s == 0 or ran_s >= RESET_AFTER_S:
        return FIRST_DELAY_S
    return min(previous_s * 2, LONGEST_DELAY_S)
