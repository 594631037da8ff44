"""The systems that are measured. Each is several hosts in the same kind of namespaces (see `shoal.lab`)."""
