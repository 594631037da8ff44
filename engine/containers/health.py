"""The state of health checks. Pure: results in, health out. `prober` runs the checks.

Source: moby, daemon/health.go.
"""

from __future__ import annotations

import msgspec

from shoal.api.specs import SECOND_NS, HealthCheck
from shoal.engine.containers.nouns import Health, HealthResult

DEFAULT_INTERVAL_NS = 30 * SECOND_NS
DEFAULT_TIMEOUT_NS = 30 * SECOND_NS
DEFAULT_START_INTERVAL_NS = 5 * SECOND_NS
DEFAULT_RETRIES = 3
KEPT_RESULTS = 5
MAX_OUTPUT_BYTES = 4096

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


def command(check: HealthCheck | None, shell: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """What is run, or None where there is nothing to check. `shell`: the image's, before CMD-SHELL."""
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    if check.test[0] == "CMD-SHELL":
        return (*(shell or ("/bin/sh", "-c")), *check.test[1:])
    return check.test[1:] if check.test[0] == "CMD" else check.test


def merge(asked: HealthCheck | None, image: HealthCheck | None) -> HealthCheck | None:
    """What was asked for, with the image's values where it says nothing."""
    if asked is None or image is None:
        return asked if asked is not None else image
    return HealthCheck(
        test=asked.test or image.test,
        interval_ns=asked.interval_ns or image.interval_ns,
        timeout_ns=asked.timeout_ns or image.timeout_ns,
        start_period_ns=asked.start_period_ns or image.start_period_ns,
        start_interval_ns=asked.start_interval_ns or image.start_interval_ns,
        retries=asked.retries or image.retries,
    )


def after(health: Health, check: HealthCheck, result: HealthResult, started_ns: int) -> Health:
    """The health once `result` is known. Failures while it starts up do not count."""
    log = (*health.log, result)[-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health(status=HEALTHY, log=log)
    if health.status == STARTING and result.start_ns - started_ns < check.start_period_ns:
        return msgspec.structs.replace(health, log=log)
    streak = health.failing_streak + 1
    failed = streak >= (check.retries or DEFAULT_RETRIES)
    return Health(status=UNHEALTHY if failed else health.status, failing_streak=streak, log=log)


def next_delay_ns(health: Health, check: HealthCheck, started_ns: int, now_ns: int) -> int:
    """How long to wait before the next check."""
    interval = check.interval_ns or DEFAULT_INTERVAL_NS
    if health.status == STARTING and now_ns - started_ns < check.start_period_ns:
        return min(check.start_interval_ns or DEFAULT_START_INTERVAL_NS, interval)
    return interval


def timeout_ns(check: HealthCheck) -> int:
    return check.timeout_ns or DEFAULT_TIMEOUT_NS
