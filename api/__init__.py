"""The nouns of Shoal as they are stored and sent between its own processes.

Imports nothing of ours; nothing here does I/O. HTTP wire types live with the
routes that speak them (`daemon`, `manager.controlapi`), not here.
"""
