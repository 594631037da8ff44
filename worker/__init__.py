"""The agent: what a host does as a node of a swarm.

It joins, keeps a session with the leading manager, brings networks and tasks to
what the managers want, and reports what it sees. `agent.Agent` is what the daemon
uses. Nothing here knows how managers decide.
"""
