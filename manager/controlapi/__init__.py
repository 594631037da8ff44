"""The cluster's half of the Docker API, served by the leader: routes, wire types, validation.

Wire types stay here; what is stored knows nothing of an API version. It is mounted
with `routes(context)`; `api_errors` is the middleware that answers errors.

Headers that the process in front sets: `X-Shoal-Api-Version` (what the client
speaks, "1.50"), `X-Shoal-Request-Id` (the same for each try of one mutating
request: it is applied once).
"""
