"""What a follower does with a leader's entries, and a leader with a follower's answers.

The library truncates entries that match, moves the commit index over entries
that nobody compared, and lets a late rejection undo an acknowledgement. The
guard gives it only messages with which it does right:

- the commit index rises no further than what was compared with the leader's log;
- a prefix that matches is taken off, so truncation happens on a conflict only;
- the hint in a rejection only falls until something was accepted;
- an answer carries its term; an older one is dropped; what is known to match never falls.
"""

from __future__ import annotations

import logging
from typing import Any

from pysyncobj.node import Node

from shoal.manager.store.raft.election import Election
from shoal.manager.store.raft.library import Message, now, replaces

log = logging.getLogger(__name__)


class Guard(Election):
    """The mends around log replication."""

    _hint: int | None = None
    _round = 0  # of the leader's message that is being answered; see `Replication`
    confirmed: dict[Node, int] = {}  # noqa: RUF012 - replaced when an office begins

    def on_fatal(self, reason: str) -> None:
        """Something that cannot be: stop rather than go on."""
        raise NotImplementedError

    def receive(self, node: Node, message: Message) -> None:
        """One message of a peer. Raises KeyError, TypeError or ValueError where it is malformed."""
        handler = self._handlers.get(message["type"])
        if handler is not None:
            getattr(self, handler)(node, message)

    _handlers: dict[str, str] = {  # noqa: RUF012 - a table; whatever is not in it is dropped (forwarded commands are)
        "append_entries": "on_append_entries",
        "next_node_idx": "on_answer",
        "request_vote": "on_request_vote",
        "response_vote": "on_response_vote",
        "timeout_now": "on_timeout_now",
        "pre_vote": "on_pre_vote",
        "pre_vote_answer": "on_pre_vote_answer",
    }

    # --- as a follower ---

    def on_append_entries(self, node: Node, message: Message) -> None:
        if not self._accept_leader(node, message):
            return
        if "prevLogIdx" in message:
            self._compare(node, message)
        else:
            self.follow(node, message, self.commit_index)  # a bare heartbeat compares nothing

    def _accept_leader(self, node: Node, message: Message) -> bool:
        """Whether the sender is the leader of this or a newer term."""
        term = message["term"]
        self._round = message.get("round", 0)
        if term < self.term:
            self.answer(node, 0, success=False)  # carries our term, so a deposed leader steps down at once
            return False
        if self.is_leading() and term == self.term:
            self.on_fatal(f"two leaders in term {term}: {self.selfNode.id} and {node.id}. One id is used twice, "
                          "or a folder was copied: remove one of these managers and let it join afresh")
            return False
        self.heard_at, self._asking = now(), None  # pre-votes were given because no leader was heard
        if term > self.term or self.leader != node:
            self._hint = None
        return True

    def follow(self, node: Node, message: Message, verified: int) -> None:
        """Let the library note term, leader and commit index, the last no higher than `verified`."""
        self.pass_on(node, {"type": "append_entries", "term": message["term"],
                            "commit_index": self.commit_limit(message["commit_index"], verified)})

    def commit_limit(self, leaders: int, verified: int) -> int:
        return min(leaders, verified)

    def _compare(self, node: Node, message: Message) -> None:
        previous, term, entries = message["prevLogIdx"], message["prevLogTerm"], message["entries"]
        first, commit = self.log[0][1], self.commit_index
        floor = max(commit, first)
        if previous < floor:  # overlaps what is committed here: alike, by leader completeness
            overlap = floor - previous
            if overlap > len(entries):
                self.follow(node, message, commit)
                self.answer(node, floor + 1, success=True)
                return
            _, previous, term = entries[overlap - 1]
            entries = entries[overlap:]
        if self._term_of(previous) != term:
            self.follow(node, message, commit)
            self.answer(node, max(self.next_hint(previous), commit + 1), success=False, reset=True)
            return
        self._hint = None
        self._take(node, message, previous, term, entries)

    def _term_of(self, index: int) -> int | None:
        entry = self.log.entry(index)
        return entry[2] if entry else None

    def next_hint(self, previous: int) -> int:
        """Where the leader should try next. Messages are pipelined: until one is accepted it only falls."""
        hint, term = self.log[-1][1] + 1, self._term_of(previous)
        if term is not None:  # skip the whole term that conflicts
            hint = previous
            while hint - 1 > self.commit_index and self._term_of(hint - 1) == term:
                hint -= 1
        if self._hint is not None:
            hint = min(hint, self._hint)
        self._hint = hint
        return hint

    def _take(self, node: Node, message: Message, previous: int, term: int, entries: Any) -> None:
        """Append what is new; truncate only where an entry conflicts."""
        known = 0
        while known < len(entries) and self._term_of(entries[known][1]) == entries[known][2]:
            known += 1
        if known == len(entries):
            verified = previous + known
            self.follow(node, message, verified)
            self.answer(node, verified + 1, success=True)
            return
        if known:
            _, previous, term = entries[known - 1]
        self.pass_on(node, {**message, "prevLogIdx": previous, "prevLogTerm": term, "entries": entries[known:]})

    def answer(self, node: Node, next_index: int, *, success: bool, reset: bool = False) -> None:
        self.outgoing(node, {"type": "next_node_idx", "next_node_idx": next_index, "reset": reset,
                             "success": success})

    # --- as a leader ---

    def on_answer(self, node: Node, message: Message) -> None:
        term = message.get("term", 0)
        if term > self.term:
            self.step_down(term)
        elif self.is_current(term) and self.is_leading() and node in self.match_index:
            self.answered_at[node] = now()
            self.confirmed[node] = max(self.confirmed.get(node, 0), message.get("round", 0))
            self.note_answer(node, message)

    def is_current(self, term: int) -> bool:
        """An answer given in an earlier term says nothing about the log of today."""
        return term == self.term

    def note_answer(self, node: Node, message: Message) -> None:
        following = message["next_node_idx"]
        if following - 1 > self.log[-1][1]:
            return
        if message["success"]:
            self.match_index[node] = max(self.match_index[node], following - 1)
            self.next_index[node] = max(self.next_index[node], following)
        elif message["reset"]:
            self.next_index[node] = max(following, self.match_index[node] + 1)

    # --- the library calls these ---

    @replaces("onMessageReceived")
    def _library_receives(self, node: Node, message: Message) -> None:
        self.receive(node, message)

    @replaces("sendNextNodeIdx")
    def _library_answers(self, node: Node, reset: bool = False, nextNodeIdx: int | None = None,  # noqa: N803
                         success: bool = False) -> None:
        following = self.log[-1][1] + 1 if nextNodeIdx is None else nextNodeIdx
        self.answer(node, following, success=success, reset=reset)
