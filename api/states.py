"""States of tasks and nodes, with the order that makes progress one-way."""

from __future__ import annotations

import enum


class TaskState(enum.IntEnum):
    """Where a task is in its life. A task's state only ever grows.

    Source of names and numbers: SwarmKit, api/types.proto.
    """

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def terminal(self) -> bool:
        """Whether the task will never run (again)."""
        return self > TaskState.RUNNING

    @property
    def word(self) -> str:
        """As the API spells it."""
        return self.name.lower()


class NodeState(enum.StrEnum):
    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class Availability(enum.StrEnum):
    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class Role(enum.StrEnum):
    WORKER = "worker"
    MANAGER = "manager"
