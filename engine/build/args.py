"""Build arguments: which are declared, what they are worth, which a command sees. Pure.

A value given with the build wins over the one the ARG has; an ARG without a value takes that of the ARG of the
same name before the first FROM.

Source: Docker's reference of the Dockerfile (ARG); moby, builder/dockerfile/buildargs.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from shoal.engine.images.distribution.manifests import Platform

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXIES = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
"""May be given without an ARG; then they are no part of the image's history or of the cache's keys."""


def platform_args(target: Platform, build: Platform) -> dict[str, str]:
    """What BuildKit predefines: worth it only where an ARG declares it, and in FROM."""
    return {f"{prefix}{name}": value for prefix, platform in (("TARGET", target), ("BUILD", build))
            for name, value in (("PLATFORM", str(platform)), ("OS", platform.os), ("ARCH", platform.architecture),
                                ("VARIANT", platform.variant))}


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """`given` with the build (None: named without a value), `before` the first FROM, `declared` in this stage."""

    given: Mapping[str, str | None] = MappingProxyType({})
    predefined: Mapping[str, str] = MappingProxyType({})
    before: Mapping[str, str | None] = MappingProxyType({})
    declared: Mapping[str, str | None] = MappingProxyType({})

    def declare(self, name: str, value: str | None) -> Args:
        return msgspec.structs.replace(self, declared={**self.declared, name: value})

    def declare_before(self, name: str, value: str | None) -> Args:
        return msgspec.structs.replace(self, before={**self.before, name: value})

    def new_stage(self) -> Args:
        return msgspec.structs.replace(self, declared={})

    def for_from(self) -> dict[str, str]:
        """What FROM may name."""
        return {**self.predefined, **self._values(self.before)}

    def values(self) -> dict[str, str]:
        """Of the declared ones, and of the proxies that were given."""
        return self._values(self.declared)

    def environment(self, env: Iterable[str]) -> dict[str, str]:
        """What a command sees of them: an ENV of the same name wins."""
        names = {entry.partition("=")[0] for entry in env}
        return {name: value for name, value in self.values().items() if name not in names}

    def recorded(self, env: Iterable[str]) -> list[str]:
        """Those of `environment` that belong to the history and the cache's key, as NAME=value, sorted."""
        return sorted(f"{name}={value}" for name, value in self.environment(env).items()
                      if name in self.declared or name not in PROXIES)

    def _values(self, source: Mapping[str, str | None]) -> dict[str, str]:
        found = {}
        for name in (*source, *sorted(PROXIES - set(source))):
            value = self._value(name, source)
            if value is not None:
                found[name] = value
        return found

    def _value(self, name: str, source: Mapping[str, str | None]) -> str | None:
        if self.given.get(name) is not None:
            return self.given[name]
        if source.get(name) is not None:
            return source[name]
        if name not in source:
            return None
        value = self.before.get(name)
        return value if value is not None else self.predefined.get(name)


def unconsumed(given: Iterable[str], declared: Iterable[str]) -> list[str]:
    """The arguments that were given and that no ARG names."""
    return sorted(set(given) - set(declared) - PROXIES)
