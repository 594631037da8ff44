"""Between a container's record and the kernel: its specification and confinement, the runtime, conmon, cgroups."""
