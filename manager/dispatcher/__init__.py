"""Sessions with the hosts' agents: what each should run and know, who is alive, what they saw."""
