"""The system calls that Python 3.11 lacks, for the spawner. Imports next to nothing: see the package.

What fails raises OSError. Numbers of system calls are those of x86_64 and arm64.
"""

from __future__ import annotations

import ctypes
import errno
import os

MACHINES = ("x86_64", "aarch64")
"""Those whose numbers stand here."""

CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x2_0000_0000
NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)

SEALS = 0x1 | 0x2 | 0x4 | 0x8
"""F_SEAL_SEAL, _SHRINK, _GROW and _WRITE: a file in memory that nobody changes any more."""

TIOCSCTTY, TIOCSWINSZ, TIOCGPTPEER, TIOCSPTLCK = 0x540E, 0x5414, 0x5441, 0x40045431

_ON_ARM = os.uname().machine == "aarch64"
_SYS_GETCWD = 17 if _ON_ARM else 79
_SYS_CAPSET = 91 if _ON_ARM else 126
_SYS_KEYCTL = 219 if _ON_ARM else 250
_SYS_CLONE3, _SYS_CLOSE_RANGE = 435, 436

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 4, 8, 22, 24
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522
_MAX_PATH_BYTES = 4096

_libc = ctypes.PyDLL(None, use_errno=True)  # holds the interpreter's lock meanwhile: a clone comes back with it
_syscall, _prctl = _libc.syscall, _libc.prctl
_syscall.restype = ctypes.c_long
_long, _none = ctypes.c_ulong, ctypes.c_ulong(0)


class _Clone(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
        "set_tid_size", "cgroup")]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def clone_sibling(cgroup: int = -1) -> int:
    """A copy of this process that is its parent's child: 0 in the copy, else its pid. `cgroup`: a folder of v2."""
    asked = _Clone(flags=CLONE_PARENT)
    if cgroup >= 0:
        asked.flags |= CLONE_INTO_CGROUP
        asked.cgroup = cgroup
    return _check(_syscall(_long(_SYS_CLONE3), ctypes.byref(asked), _long(ctypes.sizeof(asked))))


def setns(descriptor: int, kinds: int) -> None:
    """Of a pidfd: into those namespaces of that process, all of them or none."""
    _check(_libc.setns(descriptor, kinds))


def close_from(first: int) -> None:
    _check(_syscall(_long(_SYS_CLOSE_RANGE), _long(first), _long(0xFFFF_FFFF), _none))


def set_dumpable(dumpable: bool) -> None:
    """Whether others with this user's rights may look into this process and stop it; until it executes a program."""
    _check(_prctl(_PR_SET_DUMPABLE, _long(dumpable), _none, _none, _none))


def set_no_new_privileges() -> None:
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, _long(1), _none, _none, _none))


def keep_capabilities(keep: bool) -> None:
    """Whether the permitted ones outlive the change of user."""
    _check(_prctl(_PR_SET_KEEPCAPS, _long(keep), _none, _none, _none))


def drop_bounding(number: int) -> bool:
    """False where the kernel does not know so many."""
    if _prctl(_PR_CAPBSET_DROP, _long(number), _none, _none, _none) == 0:
        return True
    if ctypes.get_errno() == errno.EINVAL:
        return False
    return _check(-1) == 0


def working_folder() -> bytes:
    """As the kernel has it: "(unreachable)…" outside the root, where the C library's getcwd may find a way inside."""
    path = ctypes.create_string_buffer(_MAX_PATH_BYTES)
    _check(_syscall(_long(_SYS_GETCWD), path, _long(_MAX_PATH_BYTES)))
    return path.value


def set_capabilities(effective: int, permitted: int) -> None:
    """These; none inheritable, and so none ambient."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFF_FFFF, 32
    data = (ctypes.c_uint32 * 6)(effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    _check(_syscall(_long(_SYS_CAPSET), header, data))


def seccomp_program(instructions: bytes) -> object:
    """What `load_filter` takes."""
    return _Program(len(instructions) // 8, instructions)


def load_filter(program: object) -> None:
    _check(_prctl(_PR_SET_SECCOMP, _long(_SECCOMP_MODE_FILTER), ctypes.byref(program), _none, _none))  # type: ignore[arg-type]


def limit(number: int, soft: int, hard: int) -> None:
    """setrlimit(2)."""
    _check(_libc.prlimit64(0, number, (ctypes.c_uint64 * 2)(soft, hard), None))


def join_keyring(name: str) -> None:
    """The session keyring of that name. Nothing on a kernel that has no keyrings."""
    joined = _syscall(_long(_SYS_KEYCTL), _long(_KEYCTL_JOIN_SESSION_KEYRING), name.encode())
    if joined < 0 and ctypes.get_errno() != errno.ENOSYS:
        _check(-1)


def open_peer(terminal: int) -> int:
    """The other end of a terminal, on the very file system that the terminal is of."""
    return _check(_libc.ioctl(terminal, _long(TIOCGPTPEER), _long(os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)))


def unlock_terminal(terminal: int) -> None:
    _check(_libc.ioctl(terminal, _long(TIOCSPTLCK), ctypes.byref(ctypes.c_int(0))))


def resize_terminal(terminal: int, height: int, width: int) -> None:
    _check(_libc.ioctl(terminal, _long(TIOCSWINSZ), (ctypes.c_ushort * 4)(height, width, 0, 0)))


def control_terminal(terminal: int) -> None:
    """Make it the controlling terminal of this session."""
    _check(_libc.ioctl(terminal, _long(TIOCSCTTY), _none))
