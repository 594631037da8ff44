"""Several hosts on one machine: real daemons in namespaces, joined by a hub.

For trying things out and for tests. Knows the daemons only as commands that it
starts and sockets that it asks; imports neither manager, worker nor engine.
"""
