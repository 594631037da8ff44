"""The containers of one host: created, started, watched, logged, found again after a restart.

`engine.Engine` is the facade, `nouns` holds what it takes and gives. Nothing here
knows of clusters, of HTTP, or of how networks are made (see `api.sandbox.Networking`).
"""
