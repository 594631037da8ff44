"""Who may ask for votes, and who gives one: pre-vote, stickiness, votes of members only.

A node that has lost its leader first asks whether it would be elected (pre-vote);
only a majority's yes lets the library raise the term. So a node that was cut off
does not depose a healthy leader when it returns. The library's own election
follows unchanged; a leadership transfer skips the question.
"""

from __future__ import annotations

import logging

from pysyncobj.node import Node

from shoal.manager.store.raft.library import LibraryNode, Message, now, replaces

log = logging.getLogger(__name__)

NEVER = -1e9


class Election(LibraryNode):
    """The mends around elections. Calls: `before_tick` before the library's tick."""

    heard_at = NEVER  # when a leader of this term last spoke
    _transfer_until = NEVER  # while a leader asked us to take over
    _asking: int | None = None  # the term that we ask pre-votes for
    _begins = False  # whether the library may begin an election in this turn
    removed = False  # told that we are no member any more

    def is_member(self) -> bool:
        """Whether the latest configuration in the log has this node."""
        me = self.selfNode.id
        return not self.removed and any(m.id == me for m in self.log.configurations.latest[1])

    def majority(self) -> int:
        return (len(self.others) + 1) // 2 + 1

    def leader_is_heard(self) -> bool:
        """A leader is in office as far as we can tell. As the leader: a majority answers."""
        since = now() - float(self.conf.raftMinTimeout)
        if self.is_leading():
            return 1 + sum(self.answered_at.get(node, NEVER) > since for node in self.others) >= self.majority()
        return self.heard_at > since

    # --- asking ---

    def before_election(self) -> None:
        """Let the library start an election only where it would be won."""
        self._begins = False
        if self.is_leading() or self.election_at >= now():
            return
        if not self.is_member():
            self.election_at = now() + self.election_timeout()
        elif self.transferring or not self.others or self.may_campaign():
            self._asking, self._begins = None, True
        else:
            self.election_at = now() + self.election_timeout()
            self.ask_pre_votes()

    @replaces("connectedToAnyone")
    def begins_election(self) -> bool:
        """The library asks this last, once it finds the time come: its clock is a moment further than ours was."""
        return self._begins

    def may_campaign(self) -> bool:
        """Whether the pre-vote for the next term is won."""
        return self._asking == self.term + 1 and len(self._granted) >= self.majority()

    def ask_pre_votes(self) -> None:
        self._asking, self._granted = self.term + 1, {self.selfNode.id}
        self.leader = None
        index, term = self.last_entry()
        for node in self.others:
            self.outgoing(node, {"type": "pre_vote", "term": self._asking, "last_log_index": index,
                                 "last_log_term": term})

    _granted: set[str] = set()  # noqa: RUF012 - replaced, never changed, at the first question

    def on_pre_vote(self, node: Node, message: Message) -> None:
        """Answer whether we would vote. Changes nothing here."""
        theirs = (message["last_log_term"], message["last_log_index"])
        index, term = self.last_entry()
        granted = message["term"] > self.term and theirs >= (term, index) and not self.leader_is_heard()
        self.outgoing(node, {"type": "pre_vote_answer", "term": self.term, "asked": message["term"],
                             "granted": granted})

    def on_pre_vote_answer(self, node: Node, message: Message) -> None:
        if message["term"] > self.term:
            self.step_down(message["term"])
        elif message["granted"] and message["asked"] == self._asking and node in self.others:
            self._granted = self._granted | {node.id}
            if self.may_campaign():
                self.election_at = 0.0  # the library's next tick starts the election

    # --- voting ---

    def on_request_vote(self, node: Node, message: Message) -> None:
        if message["term"] > self.term and not message.get("transfer") and self.sticks_to_leader():
            return
        self.pass_on(node, message)

    def sticks_to_leader(self) -> bool:
        return self.leader_is_heard()

    def on_response_vote(self, node: Node, message: Message) -> None:
        if node in self.others:  # requests of managers outside our configuration are answered, their votes do not count
            self.pass_on(node, message)

    def on_timeout_now(self, node: Node, message: Message) -> None:
        if self.is_member():
            self._transfer_until = now() + float(self.conf.raftMaxTimeout)
            self.pass_on(node, message)

    def marks_transfer(self) -> bool:
        """Whether a vote that is asked for now was asked for by the leader itself."""
        return now() < self._transfer_until
