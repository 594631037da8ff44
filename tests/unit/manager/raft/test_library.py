"""The library itself: its version, the private names we stand on, and no pickle (fault 13)."""

import io
import os
import pickle
import socket
from importlib.metadata import version

import pysyncobj.journal
import pysyncobj.pickle
import pytest
from pysyncobj import SyncObj

from shoal.manager.store.raft import codec, library
from tests.unit.manager.raft.mended import Mended
from tests.unit.manager.raft.stock import Stock, as_shipped


def test_the_version_is_the_one_that_was_audited():
    assert version("pysyncobj") == library.VERSION == "0.3.17"


@pytest.fixture(scope="module")
def shipped():
    """One running member of the untouched library."""
    with Stock("A") as group:
        yield group.nodes["A"]


@pytest.mark.parametrize("name", sorted(library.PRIVATE))
def test_every_private_name_that_we_use_exists(shipped, name):
    assert hasattr(shipped, name if name.startswith("_") else "_SyncObj__" + name)


def test_what_we_replace_is_what_the_library_calls():
    """A name that was misspelt would replace nothing, and the library would go on with its own."""
    with Mended("A") as group:
        kind = type(group.nodes["A"])
        replaced = {getattr(method, "replaces", None) for base in kind.__mro__ for method in vars(base).values()}
        for name in replaced - {None}:
            private = name if name.startswith("_") else "_SyncObj__" + name
            assert hasattr(SyncObj, private)
            assert getattr(kind, private) is not getattr(SyncObj, private)


def test_no_option_that_we_set_is_unknown_to_the_library():
    """It ignores those silently."""
    with as_shipped() as stock, Mended("A") as group:
        known = set(vars(stock.SyncObjConf()))
        assert set(vars(group.nodes["A"].conf)) <= known
        assert "flushJournal" in vars(stock.SyncObjConf(flushJournal=True)) or "flushJournal" not in known


class Evil:
    """Whoever unpickles this runs a command of the sender's choice."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_fault_13_as_shipped_bytes_from_a_peer_are_executed(tmp_path):
    with as_shipped() as stock:
        stock.pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_fault_13_as_shipped_bytes_on_disk_are_executed(tmp_path):
    (tmp_path / "journal.meta").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with as_shipped() as stock:
        stock.journal.FileJournal(str(tmp_path / "journal"))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("loads", [
    pytest.param(codec.loads, id="ours"),
    pytest.param(pysyncobj.pickle.loads, id="the library's wire"),
    pytest.param(pysyncobj.journal.loads, id="the library's journal"),
])
def test_fault_13_bytes_are_never_executed(tmp_path, loads):
    with pytest.raises(ValueError, match=r"msgpack|unpack"):
        loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("call", [
    pytest.param(lambda: pysyncobj.pickle.load(io.BytesIO(pickle.dumps(1))), id="load"),
    pytest.param(lambda: pysyncobj.pickle.dump(1, io.BytesIO()), id="dump"),
])
def test_fault_13_files_are_never_pickled(call):
    with pytest.raises(codec.PickleForbidden):
        call()


@pytest.mark.parametrize("data", [
    pytest.param(b"", id="empty"),
    pytest.param(b"\x81", id="cut short"),
    pytest.param(b"\x01\x02", id="two values"),
    pytest.param(b"\xc1", id="no such type"),
    pytest.param(b"\x91" * 5000 + b"\x01", id="deeply nested"),
    pytest.param(b"\xdf\xff\xff\xff\xff", id="claims four billion pairs"),
    pytest.param(b"\xa2\xff\xff", id="text that is not UTF-8"),
])
def test_garbage_is_a_value_error(data):
    with pytest.raises(ValueError):
        codec.loads(data)


def test_values_come_back_as_they_went():
    message = {"type": "x", "entries": ((b"\x00\xff", 1, 2),), "none": None, "yes": True, "text": "é"}
    assert codec.loads(codec.dumps(message)) == message


MALFORMED = [
    {"type": "append_entries"},
    {"type": "append_entries", "term": "x"},
    {"type": "append_entries", "term": 9, "commit_index": 0, "prevLogIdx": 1, "prevLogTerm": 1},
    {"type": "append_entries", "term": 9, "commit_index": 0, "prevLogIdx": 1, "prevLogTerm": 1, "entries": 5},
    {"type": "install_snapshot", "term": 9, "commit_index": 0, "snapshot": 5},
    {"type": "next_node_idx", "term": 1},
    {"type": "pre_vote", "term": 5},
    {},
]


@pytest.mark.parametrize("message", MALFORMED, ids=str)
def test_a_malformed_message_is_refused_and_leaves_the_member_working(message):
    with Mended() as group:
        group.elect("A")
        with pytest.raises((KeyError, TypeError, ValueError)):
            group.hand("C", "A" if message.get("type") == "next_node_idx" else "B", message)
        receipt = group.write("A", b"x")
        assert group.until(lambda: receipt.outcome is not None and group.values("B") == [b"x"])


def test_what_the_library_would_forward_is_dropped():
    """A peer may not propose through us: only the API does."""
    with Mended() as group:
        group.elect("A")
        group.hand("B", "A", {"type": "apply_command", "command": b"\x00smuggled"})
        group.hand("B", "A", {"type": "unheard_of"})
        group.run(20)
        assert group.values("A") == []




def test_the_library_leaves_the_socket_module_as_it_was():
    """On import it replaces inet_ntop by one that works on Windows alone."""
    assert socket.inet_ntop(socket.AF_INET, b"\x7f\0\0\1") == "127.0.0.1"
