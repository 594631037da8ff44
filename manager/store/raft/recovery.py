"""Force a new cluster: make one surviving member the only one. Offline.

For the case that a majority is lost for good. What was not yet committed may
become so, and what only the lost members had is gone.
"""

from __future__ import annotations

from pathlib import Path

from shoal.api.errors import NotFound
from shoal.manager.store.raft import frames
from shoal.manager.store.raft.disk import Disk
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.membership import Configurations
from shoal.manager.store.raft.nouns import KIND_MEMBERS, KIND_NOOP, Entry, Member
from shoal.manager.store.raft.snapshot import Header, Snapshots, Writer

JOURNAL_NAME = "journal"


def force_new_cluster(directory: Path, me: Member, *, seal: frames.Seal = frames.PLAIN) -> int:
    """Rewrite journal and snapshot so that `me` is the only member; the number of log entries kept.

    The node must not run. Every entry is kept, changes of members become no-ops,
    and the term is raised, so that an old member that returns cannot lead.
    Raises NotFound (no journal), CorruptStorage and OSError. Safe to repeat when
    it was interrupted.
    """
    path = directory / JOURNAL_NAME
    if not path.exists():
        raise NotFound(f"no journal in {directory}: there is nothing to recover from")
    snapshots = Snapshots(directory, seal=seal)
    _rewrite_snapshot(snapshots, me)
    journal = Journal(path, me.id, [me], seal=seal)
    journal.entries = [_neutral(entry) for entry in journal.entries]
    first = journal.entries[0][1] if journal.entries else 0
    journal.configurations = Configurations(first, (me,))
    journal.term, journal.vote = journal.term + 1, None
    journal.rewrite()
    journal._destroy()
    return len(journal)


def _neutral(entry: Entry) -> Entry:
    command, index, term = entry
    return (KIND_NOOP if command[:1] == KIND_MEMBERS else command, index, term)


def _rewrite_snapshot(snapshots: Snapshots, me: Member) -> None:
    found = snapshots.read()
    if found is None:
        return
    header, chunks = found
    writer = Writer(snapshots, Header(_neutral(header.last), (me,)), chunks)
    while not writer.encoded:
        writer.step()
    writer.commit()


__all__ = ["JOURNAL_NAME", "Disk", "force_new_cluster"]
