"""The `shoal` command. Speaks the Docker Engine API over `http.client` and nothing heavier:
it starts in a tenth of a second, so nothing at import time may load aiohttp, pyroute2 or rich.
"""
