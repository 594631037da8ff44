"""The seccomp profile of a container, in the form that an OCI runtime takes. Pure, but for `default_profile`.

Profiles come as Docker writes them: rules that hold only on some architectures, or
only with some capabilities. The default one is that of Debian's
golang-github-containers-common.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument

DEFAULT_PROFILE = Path("/usr/share/containers/seccomp.json")

UNUSED_ARCHITECTURE = "SCMP_ARCH_X32"
"""Left out of the default profile: distributions' kernels have it switched off, and the runtime's filter for it
takes a third of a container's start (11 of 39 ms of CPU, runc 1.1.5)."""

_ARCHITECTURES = {  # of uname → of profiles
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}


class _Condition(msgspec.Struct):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = msgspec.field(default=None, name="minKernel")


class _Rule(msgspec.Struct):
    action: str
    names: list[str] | None = None
    name: str | None = None
    args: list[dict[str, Any]] | None = None
    errno_ret: int | None = msgspec.field(default=None, name="errnoRet")
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _Architecture(msgspec.Struct):
    architecture: str
    sub_architectures: list[str] | None = msgspec.field(default=None, name="subArchitectures")


class _Profile(msgspec.Struct):
    default_action: str = msgspec.field(name="defaultAction")
    default_errno_ret: int | None = msgspec.field(default=None, name="defaultErrnoRet")
    arch_map: list[_Architecture] | None = msgspec.field(default=None, name="archMap")
    architectures: list[str] | None = None
    flags: list[str] | None = None
    syscalls: list[_Rule] | None = None


_decode = msgspec.json.Decoder(_Profile).decode
"""Made here: two threads that decode a type for the first time, both at once, crash msgspec 0.22."""


def compile_profile(
    profile: bytes, capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """The `linux.seccomp` of the profile for a container with these capabilities. Raises InvalidArgument."""
    try:
        parsed = _decode(profile)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    arch, scmp_arch = _ARCHITECTURES.get(machine, (machine, ""))
    result: dict[str, Any] = {"defaultAction": parsed.default_action}
    if parsed.default_errno_ret is not None:
        result["defaultErrnoRet"] = parsed.default_errno_ret
    architectures = parsed.architectures or []
    for known in parsed.arch_map or []:
        if known.architecture == scmp_arch:
            architectures = [known.architecture, *(known.sub_architectures or [])]
    if architectures:
        result["architectures"] = architectures
    if parsed.flags:
        result["flags"] = parsed.flags
    result["syscalls"] = [
        _syscall(rule) for rule in parsed.syscalls or []
        if _holds(rule, arch, capabilities, kernel)
    ]
    return result


def _holds(rule: _Rule, arch: str, capabilities: Collection[str], kernel: tuple[int, int]) -> bool:
    includes, excludes = rule.includes or _Condition(), rule.excludes or _Condition()
    if includes.arches and arch not in includes.arches:
        return False
    if excludes.arches and arch in excludes.arches:
        return False
    if includes.min_kernel and kernel < _version(includes.min_kernel):
        return False
    if excludes.min_kernel and kernel >= _version(excludes.min_kernel):
        return False
    if any(name not in capabilities for name in includes.caps or ()):
        return False
    return not any(name in capabilities for name in excludes.caps or ())


def _syscall(rule: _Rule) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errno_ret is not None:
        entry["errnoRet"] = rule.errno_ret
    if rule.args:
        entry["args"] = rule.args
    return entry


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor.partition(".")[0] or 0)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: invalid minKernel {text!r}") from error


@lru_cache(maxsize=8)
def compiled(profile: bytes | None, capabilities: frozenset[str]) -> msgspec.Raw | None:
    """As JSON, for this machine; None for the default profile where it is not installed. Kept: it is always the same.

    `profile` None: the default one.
    """
    kernel, machine = _version(platform.release()), platform.machine()
    if profile is not None:
        return msgspec.Raw(msgspec.json.encode(compile_profile(profile, capabilities, machine, kernel)))
    try:
        made = compile_profile(DEFAULT_PROFILE.read_bytes(), capabilities, machine, kernel)
    except FileNotFoundError:
        return None
    made["architectures"] = [name for name in made.get("architectures", ()) if name != UNUSED_ARCHITECTURE]
    return msgspec.Raw(msgspec.json.encode(made))
