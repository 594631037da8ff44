"""The stdio of containers and of execs, in the hands of clients."""
