"""The control plane: what the swarm should run, decided and replicated.

Knows `api` only. Never imports the worker: what it says to an agent is a message.
"""
