"""The engine's half of the HTTP API: routes and their wire types.

A handler parses, calls one noun of the engine, and writes the answer; nothing is
decided here. Every error becomes `{"message": …}` in `errors`, and nowhere else.
"""
