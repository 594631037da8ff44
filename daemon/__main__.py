"""`python -m shoal.daemon`: the same as the command `shoald`."""

from shoal.daemon.main import main

main()
