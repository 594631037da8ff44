"""shoald: one process per host that serves the Engine API and owns what runs there."""
