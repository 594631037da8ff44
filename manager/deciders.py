"""The deciders that a leader runs, each in a loop of its own."""

from __future__ import annotations

from shoal.manager.allocator.allocator import Allocator
from shoal.manager.controlloop import Decider
from shoal.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from shoal.manager.orchestrator.global_ import GlobalOrchestrator
from shoal.manager.orchestrator.nodes import LostNodes
from shoal.manager.orchestrator.replicated import ReplicatedOrchestrator
from shoal.manager.orchestrator.taskreaper import TaskReaper
from shoal.manager.orchestrator.tasks import Mint
from shoal.manager.scheduler.scheduler import Scheduler


def deciders(mint: Mint) -> list[Decider]:
    """A fresh set for one term of office; `mint` gives ids to new tasks."""
    return [
        ReplicatedOrchestrator(mint),
        GlobalOrchestrator(mint),
        TaskReaper(),
        ConstraintEnforcer(),
        LostNodes(),
        Allocator(),
        Scheduler(),
    ]
