"""Who a container runs as: names and numbers against the image's own /etc/passwd and /etc/group.

The files belong to strangers: they are opened inside the container's root, whatever
their links say, and read up to a bound. `resolve` is pure.

Source of the rules: moby/sys/user, GetExecUser.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.storage.mount import open_in_root

MAX_FILE_BYTES = 1 << 20
_MAX_ID = (1 << 31) - 1


class User(msgspec.Struct, frozen=True):
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()  # supplementary, with `gid` among them


def resolve(spec: str, extra_groups: Sequence[str], passwd: str, group: str) -> User:
    """The user of "user[:group]". Raises InvalidArgument for a name that the image does not know."""
    user_part, _, group_part = spec.partition(":")
    users = [line.split(":") for line in passwd.splitlines() if line.count(":") >= 3]
    groups = [line.split(":") for line in group.splitlines() if line.count(":") >= 2]
    uid, gid, name = _user(user_part, users)
    supplementary: list[int] = []
    if group_part:
        gid = _group(group_part, groups)
    elif name:
        supplementary = [int(entry[2]) for entry in groups
                         if len(entry) > 3 and entry[2].isdecimal() and name in entry[3].split(",")]
    supplementary += [_group(extra, groups) for extra in extra_groups]
    return User(uid, gid, tuple(dict.fromkeys([gid, *supplementary])))


def _user(wanted: str, users: Sequence[Sequence[str]]) -> tuple[int, int, str]:
    """uid, gid, name ("" where the image has no such user)."""
    for entry in users:
        if entry[2].isdecimal() and entry[3].isdecimal() and wanted in (entry[0], entry[2]):
            return int(entry[2]), int(entry[3]), entry[0]
    if not wanted:
        root = next((entry for entry in users if entry[2] == "0"), None)
        return 0, 0, root[0] if root else ""
    if not wanted.isdecimal():
        raise InvalidArgument(f"unable to find user {wanted}: no matching entries in passwd file")
    return _number(wanted, "uids"), 0, ""


def _group(wanted: str, groups: Sequence[Sequence[str]]) -> int:
    for entry in groups:
        if entry[2].isdecimal() and wanted in (entry[0], entry[2]):
            return int(entry[2])
    if not wanted.isdecimal():
        raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")
    return _number(wanted, "gids")


def _number(text: str, kind: str) -> int:
    number = int(text)
    if number > _MAX_ID:
        raise InvalidArgument(f"{kind} must be in range 0-{_MAX_ID}")
    return number


def read(root_fd: int, path: str) -> str:
    """A text file inside the root; "" where there is none."""
    try:
        descriptor = open_in_root(root_fd, path.encode(), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)


def home_of(uid: int, passwd: str) -> str:
    """The home of the first user with that number; "/" where the image has none."""
    entries = (line.split(":") for line in passwd.splitlines())
    return next((entry[5] for entry in entries if len(entry) > 5 and entry[2] == str(uid)), "/")


def with_home(root: str | os.PathLike[str], spec: str, extra_groups: Sequence[str]) -> tuple[User, str]:
    """As `of_root`, and the user's home. Blocking."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd = read(root_fd, "etc/passwd")
        user = resolve(spec, extra_groups, passwd, read(root_fd, "etc/group"))
        return user, home_of(user.uid, passwd)
    finally:
        os.close(root_fd)


def of_root(root: str | os.PathLike[str], spec: str, extra_groups: Sequence[str]) -> User:
    """`resolve` against the files of a root that is mounted at `root`. Blocking."""
    return with_home(root, spec, extra_groups)[0]
