"""Spreading over labels: each level gives its next task to the branch that has fewest. Pure.

Nodes without the label are a branch of their own. Within a leaf the order of
`rank` decides. Source: SwarmKit, design/topology.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from shoal.manager.scheduler.constraints import attribute
from shoal.manager.scheduler.nodeset import NodeInfo

Rank = Callable[[NodeInfo], tuple[int | str, ...]]


class Branch:
    """A group of nodes with the same labels down to its level; without preferences the whole cluster.

    Invariant: `tasks` counts the service's tasks of every node below, admitted or not.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.tasks = 0
        self.branches: dict[str, Branch] = {}
        self._heap: list[tuple[tuple[int | str, ...], str, NodeInfo]] = []

    def add(self, info: NodeInfo, preferences: Sequence[str], tasks: int, rank: Rank | None) -> None:
        """Put a node at its place; with `rank` None it only counts, and gets nothing."""
        self.tasks += tasks
        if preferences:
            label = attribute(preferences[0], info.node)
            branch = self.branches.setdefault(label, Branch(label))
            branch.add(info, preferences[1:], tasks, rank)
        elif rank is not None:
            heapq.heappush(self._heap, (rank(info), info.node.id, info))

    def take(self, rank: Rank, admits: Callable[[NodeInfo], bool]) -> NodeInfo | None:
        """The node for the next task, None where no node is left; a refused one is not asked again."""
        for branch in sorted(self.branches.values(), key=lambda branch: (branch.tasks, branch.label)):
            info = branch.take(rank, admits)
            if info is not None:
                self.tasks += 1
                return info
        while self._heap:
            _, _, info = heapq.heappop(self._heap)
            if admits(info):
                self.tasks += 1
                return info
        return None

    def give_back(self, info: NodeInfo, preferences: Sequence[str], rank: Rank) -> None:
        """The node may get another task: it has its place in the order again."""
        branch = self
        for preference in preferences:
            branch = branch.branches[attribute(preference, info.node)]
        heapq.heappush(branch._heap, (rank(info), info.node.id, info))


def tree(
    admitted: Iterable[NodeInfo], refused: Iterable[NodeInfo], preferences: Sequence[str], service_id: str, rank: Rank
) -> Branch:
    """All nodes in their branches."""
    root = Branch("")
    for info in admitted:
        root.add(info, preferences, info.service_count(service_id), rank)
    if preferences:
        for info in refused:
            root.add(info, preferences, info.service_count(service_id), None)
    return root
