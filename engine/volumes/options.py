"""The options of `local` volumes: which there are, and what they mean to mount(8). Pure.

Source of the rules and messages: moby, volume/local/local_unix.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shoal.api.errors import InvalidArgument

MAX_NAME_LENGTH = 255

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_KNOWN = frozenset({"type", "device", "o", "size"})
_NEEDED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_BY_NETWORK = frozenset({"nfs", "nfs4", "cifs"})
_PASSWORD = re.compile(r"\b(password|pass|passwd)=[^,\s]*")


def check_name(name: str) -> None:
    """Of a local volume, which is a folder's name. Raises InvalidArgument."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path')


def check_foreign_name(name: str) -> None:
    """Of a plugin's volume: whatever can be a record's name. Raises InvalidArgument."""
    if (name in (".", "..") or len(name.encode(errors="replace")) > MAX_NAME_LENGTH
            or any(each == "/" or ord(each) < 32 or 0xD800 <= ord(each) < 0xE000 for each in name)):
        raise InvalidArgument(f"create {name[:MAX_NAME_LENGTH]}: a volume's name has at most {MAX_NAME_LENGTH} bytes "
                              "and neither slashes nor control characters")


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Raises InvalidArgument."""
    for option in options:
        if option not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    if options.get("size", "0") not in ("", "0"):
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for option, needed in _NEEDED.items():
        for each in needed if option in options else ():
            if not options.get(each):
                raise InvalidArgument(f'create {name}: missing required option: "{each}"')
    if any("\0" in value for value in options.values()):
        raise InvalidArgument(f"create {name}: an option has a NUL character")


def is_file_system(options: Mapping[str, str]) -> bool:
    """Whether they name something to mount."""
    return bool(options.get("device") or options.get("type"))


def address_of(options: Mapping[str, str]) -> str:
    """The server that mount options name by addr=, to be resolved; "" where there is none."""
    if options.get("type") not in _BY_NETWORK:
        return ""
    named = (each.removeprefix("addr=") for each in options.get("o", "").split(",") if each.startswith("addr="))
    return next(named, "")


def mount_command(options: Mapping[str, str], target: str, address: str = "") -> list[str]:
    """mount(8) for them. `address`: what `address_of` was resolved to.

    With an address the kernel has all it needs, as Docker's mount(2) has; without one, a helper
    (mount.nfs) that finds it itself may help.
    """
    kind, given = options.get("type", ""), options.get("o", "")
    if address:
        given = given.replace(f"addr={address_of(options)}", f"addr={address}", 1)
    command = ["mount", *(["-i"] if address else [])]
    if kind and kind != "none":
        command += ["-t", kind]
    if given:
        command += ["-o", given]
    return [*command, "--", options["device"], target]


def without_passwords(text: str) -> str:
    return _PASSWORD.sub(r"\1=********", text)
