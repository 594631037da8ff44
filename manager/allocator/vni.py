"""VXLAN network identifiers. Pure."""

from __future__ import annotations

FIRST = 4097
"""Those up to 4096 are left to the ingress network and to users."""

LAST = (1 << 24) - 1


class VNIs:
    """Invariant: an identifier is held by one network at most; they are given in turn, from `next` on.

    So one that was freed is not given again soon: hosts may still wind down the network that had it.
    """

    def __init__(self, next_vni: int = FIRST) -> None:
        self._owners: dict[int, str] = {}
        self.next = next_vni

    def claim(self, vni: int, owner: str) -> bool:
        """Note an identifier as held; False where another network holds it."""
        if self._owners.setdefault(vni, owner) != owner:
            return False
        if vni >= self.next:
            self.next = vni + 1
        return True

    def take(self, owner: str) -> int | None:
        """The next free one; None where every one is held."""
        for _ in range(len(self._owners) + 1):
            while self.next in self._owners:
                self.next += 1
            if self.next <= LAST:
                vni, self.next = self.next, self.next + 1
                self._owners[vni] = owner
                return vni
            self.next = FIRST
        return None

    def release(self, vni: int, owner: str) -> None:
        if self._owners.get(vni) == owner:
            del self._owners[vni]
