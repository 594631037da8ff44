"""The seccomp filter that a process runs under, and what it makes of a system call.

Source: ptrace(2), PTRACE_SECCOMP_GET_FILTER (the kernel has CONFIG_CHECKPOINT_RESTORE); linux/filter.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

Filter = list[tuple[int, int, int, int]]

_SEIZE, _INTERRUPT, _GET_FILTER, _DETACH = 0x4206, 0x4207, 0x420C, 17
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int | None = None, data: object = None) -> int:
    result = int(_libc.ptrace(request, pid, address, data))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def filter_of(pid: int) -> Filter:
    """Its last one. The process stands still meanwhile."""
    _ptrace(_SEIZE, pid)
    try:
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, _WALL)
        length = _ptrace(_GET_FILTER, pid, 0)
        room = ctypes.create_string_buffer(8 * length)
        _ptrace(_GET_FILTER, pid, 0, room)
    finally:
        _ptrace(_DETACH, pid)
    return [struct.unpack_from("=HBBI", room, 8 * at) for at in range(length)]


def outcome(program: Filter, architecture: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the kernel does with that system call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, memory, at = 0, [0] * 16, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:
            accumulator = int(struct.unpack_from("=I", data, value)[0])
        elif code == 0x06:
            return value
        elif code == 0x05:
            at += value
        elif code == 0x54:
            accumulator &= value
        elif code == 0x02:
            memory[value] = accumulator
        elif code == 0x60:
            accumulator = memory[value]
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value,
                     0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false
