"""An OCI distribution 1.1 server over a file system, in the layout of Docker's own registry. Knows only `api`."""
