"""Raft: one order of commands, the same on every manager, that survives any minority of failures.

The library (PySyncObj, pinned) does elections and counting. As shipped it loses
acknowledged writes, so it is used behind mends, one module for each concern:

    codec        msgpack in place of pickle
    frames       records on disk, with checksums
    journal      the write-ahead log
    snapshot     state on disk, in steps
    membership   which configuration holds
    library      the library's private names, readable
    election     pre-vote, stickiness
    guard        what is compared before it counts
    replication  sending the log and snapshots
    consensus    the above as one member: proposals, reads, members
    transport    mutual TLS between members
    node         the asyncio face: `RaftNode`
    recovery     force a new cluster

This folder alone imports pysyncobj.
"""

from shoal.manager.store.raft import codec as codec  # first: it takes pickle out of the library
from shoal.manager.store.raft.node import RaftNode
from shoal.manager.store.raft.nouns import (
    MAX_COMMAND_BYTES,
    CommandTooLarge,
    CorruptStorage,
    Member,
    Members,
    MembershipConflict,
    NotLeader,
    OutcomeUnknown,
    RaftTiming,
    Restoring,
    Role,
    StateMachine,
    TlsContexts,
)
from shoal.manager.store.raft.recovery import force_new_cluster

__all__ = [
    "MAX_COMMAND_BYTES",
    "CommandTooLarge",
    "CorruptStorage",
    "Member",
    "Members",
    "MembershipConflict",
    "NotLeader",
    "OutcomeUnknown",
    "RaftNode",
    "RaftTiming",
    "Restoring",
    "Role",
    "StateMachine",
    "TlsContexts",
    "force_new_cluster",
]
