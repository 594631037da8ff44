"""nftables through libnftables: one context, one namespace, atomic transactions.

A context stays bound to the namespace that its thread was in when it was
opened, and is used from one thread only. Closing one soon after a deletion waits
for the kernel (15 ms), so contexts are kept. What the rules say is decided in
`hosttable.py` and `sandboxtable.py`; tables other than ours are never touched.
"""

from __future__ import annotations

import nftables

from shoal.api.errors import ShoalError

TABLE = "shoal"
"""Our table (family inet), in the host's namespace and in each sandbox."""

EMPTY = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
"""Prefix of a transaction that writes our table anew, whether or not it exists."""


class NftError(ShoalError):
    """libnftables refused a transaction; nothing of it was done."""


_FORGET = "describe ip saddr"
"""A command that needs nothing of the kernel's: libnftables lets go of its copy of our table (0.5 MiB) at it."""


class Nft:
    """A libnftables context of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._context = nftables.Nftables()

    def run(self, commands: str, *, remember: bool = False) -> str:
        """Run `commands` as one transaction. Raises NftError; then nothing has changed.

        `remember`: keep libnftables' copy of our table for the next change, which
        pays where the table is long (500 services: 1 ms, else 13).
        """
        code, output, error = self._context.cmd(commands)
        if not remember:
            self._context.cmd(_FORGET)
        if code:
            first = next((line for line in error.splitlines() if line.strip()), "unknown error")
            raise NftError(f"nftables refused a change: {first}")
        return str(output)
