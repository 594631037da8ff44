"""`python -m shoal.manager`."""

from shoal.manager.main import main

main()
