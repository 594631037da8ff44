"""The cluster's state: one deterministic state machine behind Raft.

`changes` are what can be asked, `state` is what is, `apply` turns one into the
next (pure, total), `memory` holds the newest state and its watchers, `raft`
orders the commands.
"""
