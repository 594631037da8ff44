"""This host as a node of a swarm: joining and leaving, its agent, its manager process, and the cluster's routes.

`host.SwarmHost` is what the daemon uses. No decision about the cluster is made here.
"""
