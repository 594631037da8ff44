"""The library as shipped, in the test's hand: a second copy of its modules, untouched."""

from __future__ import annotations

import _socket
import importlib
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.unit.manager.raft.group import ELECTION_S, HAPPENED, POISON, REFUSED, UNKNOWN, Group, Receipt

NAME = "pysyncobj"
_modules: dict[str, ModuleType] = {}


def _mine(name: str) -> bool:
    return name == NAME or name.startswith(NAME + ".")


@contextmanager
def as_shipped() -> Iterator[ModuleType]:
    """Inside, `import pysyncobj` gives the untouched copy. Afterwards everything is as before."""
    mended = {name: module for name, module in sys.modules.items() if _mine(name)}
    for name in mended:
        del sys.modules[name]
    sys.modules.update(_modules)
    try:
        package = importlib.import_module(NAME)
        for part in ("journal", "node", "pickle", "serializer", "syncobj", "tcp_connection", "transport"):
            importlib.import_module(f"{NAME}.{part}")
        yield package
    finally:
        _modules.update({name: module for name, module in sys.modules.items() if _mine(name)})
        for name in _modules:
            sys.modules.pop(name, None)
        sys.modules.update(mended)
        socket.inet_ntop = _socket.inet_ntop  # it puts one there that works on Windows alone


class Stock(Group):
    """The library as shipped: @replicated, journal and dump files, its own everything but sockets and clock."""

    mended = False

    def __init__(self, names: str = "ABC", **options: Any) -> None:
        super().__init__(names, **options)
        self._ports: dict[str, Any] = {}

    def __enter__(self) -> Group:
        self._copy = as_shipped()
        self.library = self._copy.__enter__()
        self.library.syncobj.monotonicTime = self.clock
        self._class = self._member_class()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._copy.__exit__(None, None, None)

    def _member_class(self) -> type[Any]:
        replicated = self.library.replicated

        class Store(self.library.SyncObj):  # type: ignore[misc,name-defined]
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.values: list[bytes] = []  # set after the constructor, so that its snapshots hold it

            @replicated
            def put(self, value: bytes) -> bytes:
                if value == POISON:
                    raise ValueError("a poisoned command")
                self.values.append(value)
                return value

        return Store

    def start(self, name: str) -> None:
        group, Node = self, self.library.node.Node  # noqa: N806 - a class

        class Port(self.library.transport.Transport):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__(None, None, [])

            def send(self, node: Any, message: dict[str, Any]) -> bool:
                return group.send(name, node.id, message)

            def addNode(self, node: Any) -> None: ...  # noqa: N802

            def dropNode(self, node: Any) -> None: ...  # noqa: N802

        settings = {
            "autoTick": False, "raftMinTimeout": ELECTION_S[0], "raftMaxTimeout": ELECTION_S[1],
            "appendEntriesUseBatch": False, "dynamicMembershipChange": True, "useFork": False,
            "logCompactionMinEntries": 10**6, "logCompactionMinTime": 10**6,
            "journalFile": str(self.folder / f"{name}.journal"), "fullDumpFile": str(self.folder / f"{name}.dump"),
        }
        port = self._ports[name] = Port()
        self.nodes[name] = self._class(
            Node(name), [Node(other) for other in self.names if other != name],
            self.library.SyncObjConf(**{**settings, **self.options}), nodeClass=Node, transport=port,
        )

    def turn(self, name: str) -> None:
        self.nodes[name].doTick(0)

    def link(self, name: str, other: str, up: bool) -> None:
        port, node = self._ports[name], self.library.node.Node(other)
        (port._onNodeConnected if up else port._onNodeDisconnected)(node)

    def receive(self, source: str, target: str, message: dict[str, Any]) -> None:
        self._ports[target]._onMessageReceived(self.library.node.Node(source), message)

    def snapshot(self, name: str) -> Path:
        return self.folder / f"{name}.dump"

    def values(self, name: str) -> list[bytes]:
        return list(self.nodes[name].values)

    def _receipt(self) -> tuple[Receipt, Callable[[Any, int], None]]:
        receipt, reasons = Receipt(), self.library.FAIL_REASON

        def done(_: Any, error: int) -> None:
            unknown = error in (reasons.LEADER_CHANGED, getattr(reasons, "UNKNOWN_OUTCOME", None))
            receipt.outcome = HAPPENED if error == reasons.SUCCESS else UNKNOWN if unknown else REFUSED

        return receipt, done

    def write(self, name: str, value: bytes) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].put(value, callback=done)
        return receipt

    def body(self, entry_bytes: int) -> bytes:
        dumps = self.library.pickle.dumps
        size = entry_bytes
        while 1 + len(dumps((0, (b"x" * size,)))) > entry_bytes:
            size -= 1
        return b"x" * size

    def add(self, name: str, new: str) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].addNodeToCluster(self.library.node.Node(new), callback=done)
        return receipt

    def remove(self, name: str, gone: str) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].removeNodeFromCluster(self.library.node.Node(gone), callback=done)
        return receipt

    def compact(self, name: str) -> None:
        self.nodes[name].forceLogCompaction()
