"""The keys that let go of a terminal (`--detach-keys`), found in its input. Pure."""

from __future__ import annotations

from shoal.api.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
"""The key of each control code, in the order of the codes."""


def parse(text: str) -> bytes:
    """The codes of keys such as "ctrl-p,ctrl-q" or "a,b". Raises InvalidArgument."""
    codes = bytearray()
    for key in (text or DEFAULT).split(","):
        control = key.lower().removeprefix("ctrl-") if key.lower().startswith("ctrl-") else ""
        if len(control) == 1 and control in _CONTROL:
            codes.append(_CONTROL.index(control))
        elif len(key) == 1 and key.isascii():
            codes.append(ord(key))
        else:
            raise InvalidArgument(f"invalid detach keys ({text}): unknown key {key!r}")
    return bytes(codes)


class DetachKeys:
    """Holds back the beginning of the sequence until it is clear that it is none."""

    def __init__(self, codes: bytes) -> None:
        self._codes = codes
        self._matched = 0
        self.found = False

    def pass_on(self, data: bytes) -> bytes:
        """What of the input goes to the program. Once `found`, nothing does any more."""
        passed = bytearray()
        for code in data:
            if self.found:
                break
            if code != self._codes[self._matched] and self._matched:
                passed += self._codes[: self._matched]
                self._matched = 0
            if code == self._codes[self._matched]:
                self._matched += 1
                self.found = self._matched == len(self._codes)
            else:
                passed.append(code)
        return bytes(passed)
