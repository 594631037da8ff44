"""What each kind of network needs of the kernel."""
