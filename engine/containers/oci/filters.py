"""A seccomp profile compiled into what the kernel loads, as runc compiles it: for programs that it does not start.

The library is libseccomp2, by ctypes: it is the one that runc itself is linked with. What libseccomp compiles,
runc puts a stub before: system calls newer than the profile give ENOSYS, whatever its default is. `enosys_stub` is
pure, and makes the same. Source: runc 1.1, libcontainer/seccomp.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from shoal.api.errors import ShoalError

LIBRARY = "libseccomp.so.2"

_AUDIT = {"x86": 0x40000003, "x86_64": 0xC000003E, "x32": 0xC000003E, "arm": 0x40000028, "aarch64": 0xC00000B7}
"""The kernel's numbers of those architectures that a filter is compiled for here."""

_ACTIONS = {
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_CODE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_ALLOWING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_COMPARISONS = {name: number for number, name in enumerate(
    ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), start=1)}
_EPERM, _EEXIST, _ENOSYS = 1, 17, 38
_ATTRIBUTE_NO_NEW_PRIVILEGES = 3
_ARGUMENTS = 6
_X32_BIT = 1 << 30

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, value."""
_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05
_IF_EQUAL, _IF_GREATER, _IF_SET = 0x15, 0x25, 0x45


class Unsupported(ShoalError):
    """The filter cannot be compiled here; the runtime may know better."""


class _Argument(msgspec.Struct, frozen=True):
    index: int
    op: str
    value: int = 0
    value_two: int = msgspec.field(default=0, name="valueTwo")


class _Rule(msgspec.Struct, frozen=True):
    names: list[str]
    action: str
    errno_ret: int | None = msgspec.field(default=None, name="errnoRet")
    args: list[_Argument] | None = None


class _Seccomp(msgspec.Struct, frozen=True):
    """`linux.seccomp` of a container's specification."""

    default_action: str = msgspec.field(name="defaultAction")
    default_errno_ret: int | None = msgspec.field(default=None, name="defaultErrnoRet")
    architectures: list[str] = []
    flags: list[str] = []
    syscalls: list[_Rule] = []


class _Comparison(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


_decode = msgspec.json.Decoder(_Seccomp).decode


@lru_cache(maxsize=64)
def compile_filter(profile: bytes) -> bytes:
    """The program for `linux.seccomp` as JSON. Blocking, some milliseconds; kept. Raises Unsupported."""
    seccomp = _decode(profile)
    if seccomp.flags:
        raise Unsupported("its seccomp profile has flags")
    library = _library()
    names = [_architecture(name) for name in seccomp.architectures]
    default = _action(seccomp.default_action, seccomp.default_errno_ret)
    context = library.seccomp_init(default)
    if not context:
        raise Unsupported("libseccomp refuses the profile's default action")
    try:
        for name in names:
            if library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(name.encode())) not in (0, -_EEXIST):
                raise Unsupported(f"libseccomp has no architecture {name}")
        library.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVILEGES, 0)
        for rule in seccomp.syscalls:
            _add(library, context, rule, default)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if seccomp.default_action in _ALLOWING or seccomp.default_errno_ret == 0x00050000 | _ENOSYS:
        return program
    stub = enosys_stub(last_numbers(library, names, [name for rule in seccomp.syscalls for name in rule.names]))
    return b"".join(struct.pack("=HBBI", *one) for one in stub) + program


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Unsupported(f"{LIBRARY} is not installed") from error
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _architecture(name: str) -> str:
    known = name.removeprefix("SCMP_ARCH_").lower()
    if known not in _AUDIT:
        raise Unsupported(f"its seccomp profile has the architecture {name}")
    return known


def _action(name: str, code: int | None) -> int:
    if name not in _ACTIONS:
        raise Unsupported(f"its seccomp profile has the action {name}")
    number = _ACTIONS[name]
    return number | ((_EPERM if code is None else code) & 0xFFFF) if name in _WITH_CODE else number


def _add(library: ctypes.CDLL, context: int, rule: _Rule, default: int) -> None:
    action = _action(rule.action, rule.errno_ret)
    if action == default:
        return
    conditions = [_comparison(one) for one in rule.args or ()]
    twice = len({one.index for one in conditions}) < len(conditions)
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue  # a newer kernel's
        for group in [[one] for one in conditions] if twice else [conditions]:
            array = (_Comparison * _ARGUMENTS)(*group)
            if code := library.seccomp_rule_add_array(context, action, number, len(group), array):
                raise Unsupported(f"libseccomp refuses the rule for {name}: {os.strerror(-code)}")


def _comparison(argument: _Argument) -> _Comparison:
    name = argument.op.removeprefix("SCMP_CMP_")
    if name not in _COMPARISONS or not 0 <= argument.index < _ARGUMENTS:
        raise Unsupported(f"its seccomp profile compares argument {argument.index} by {argument.op}")
    return _Comparison(argument.index, _COMPARISONS[name], argument.value, argument.value_two)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("filter")
    try:
        if code := library.seccomp_export_bpf(context, descriptor):
            raise Unsupported(f"libseccomp cannot compile the profile: {os.strerror(-code)}")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def last_numbers(library: Any, architectures: Sequence[str], names: Sequence[str]) -> dict[int, dict[str, int]]:
    """The highest system call that the profile names, for each architecture by the kernel's number of it."""
    found: dict[int, dict[str, int]] = {}
    for architecture in architectures:
        token = library.seccomp_arch_resolve_name(architecture.encode())
        known = found.setdefault(_AUDIT[architecture], {})
        last = max((library.seccomp_syscall_resolve_name_arch(token, name.encode()) for name in names), default=0)
        if last > 0:
            known[architecture] = last
    return found


def enosys_stub(last: dict[int, dict[str, int]]) -> list[Instruction]:
    """What gives ENOSYS for system calls above the last ones, and goes on to the filter behind it for all others."""
    tail: list[Instruction] = [(_JUMP, 0, 0, 1), (_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS)]
    lengths: dict[int, int] = {}
    for audit, known in last.items():
        if known:
            tail = _section(known, len(tail)) + tail
            lengths[audit] = len(tail)
    tail.insert(0, (_JUMP, 0, 0, len(tail)))  # an architecture that the profile does not name
    for audit, length in lengths.items():
        tail.insert(0, (_IF_EQUAL, len(tail) - length, 0, audit))
    return [(_LOAD, 0, 0, 4), *tail]


def _section(known: dict[str, int], behind: int) -> list[Instruction]:
    """For one architecture of the kernel; `behind` instructions follow, the last of which gives ENOSYS."""
    load, on = (_LOAD, 0, 0, 0), (_JUMP, 0, 0, behind)
    above = {name: (_IF_GREATER, behind, 0, number) for name, number in known.items()}
    if "x86_64" in known and "x32" in known:
        code, jump, _, number = above["x86_64"]
        return [load, (_IF_SET, 1, 0, _X32_BIT), (code, jump + 1, 1, number), above["x32"], on]
    name = next(iter(known))
    if name == "x86_64":
        return [load, (_IF_SET, 1, 0, _X32_BIT), above[name], on]
    if name == "x32":
        return [load, (_IF_SET, 0, 1, _X32_BIT), above[name], on]
    return [load, above[name], on]
