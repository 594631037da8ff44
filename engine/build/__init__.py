"""Images from Dockerfiles, as Docker's classic builder makes them.

Without I/O: `parser` and `instructions` read the text, `words` expands variables, `args` and `effects` hold what
instructions change, `stages` says what has to be built and in which order, `keys` names what the cache is asked for.
With I/O: `context`, `sources`, `copying`, `running`, `steps`; `builder.Builder` is the whole of it.
Nothing here knows HTTP.
"""
