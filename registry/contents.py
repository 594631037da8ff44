"""What an image of the registry holds: this Python, the packages and shared libraries that it loads, Shoal's code.

All of it is from this host, so that nothing has to be fetched. In the image it lies below `PREFIX`, but for the loader
of shared libraries, whose place is written into every program.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument

PREFIX = "usr/lib/shoal"
PYTHON = f"{PREFIX}/bin/python3"
PACKAGES = f"{PREFIX}/packages"
LIBRARIES = f"{PREFIX}/libraries"
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
OURS = ("api", "cli", "registry")
ENTRY = ("shoal.cli.main", "shoal.cli.commands.registry", "shoal.registry.serving", "shoal.registry.collector",
         "shoal.registry.auth.token", "shoal.registry.auth.htpasswd")
"""Whatever `shoal registry` may load, loads with these."""
UNUSED = re.compile(r"__pycache__|site-packages|dist-packages|tests?|idlelib|tkinter|turtledemo|ensurepip|lib2to3|"
                    r"pydoc_data|config-.*|"
                    r"(_tkinter|_?curses|_curses_panel|_sqlite3|_g?dbm|readline|nis|ossaudiodev|_crypt|_.*test.*|xx.*)\..*so")
"""Folders and files of the standard library that a server has no use for; some bring many libraries with them."""

_PROBE = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
found = {}
for name in {each.partition(".")[0] for each in set(sys.modules) - before}:
    places = list(getattr(sys.modules[name], "__path__", [])) or [getattr(sys.modules[name], "__file__", None)]
    if name != "shoal" and name not in sys.stdlib_module_names and places != [None]:
        found[name] = places
print(json.dumps(found))
"""
_found = msgspec.json.Decoder(dict[str, list[str]])
_LIBRARY = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def collect() -> dict[str, Path]:
    """Path in the image → file of this host. Raises InvalidArgument for what is missing here."""
    files = {PYTHON: Path(sys.executable).resolve(), **_standard_library(), **_packages(), **_ours()}
    authorities = ssl.get_default_verify_paths().cafile
    if authorities:
        files[AUTHORITIES] = Path(authorities)
    programs = [path for name, path in files.items() if name == PYTHON or path.name.endswith(".so")]
    return {**files, **libraries(_ldd(programs))}


def _standard_library() -> dict[str, Path]:
    """At the same place below the prefix, where Python looks for it."""
    found: dict[str, Path] = {}
    for part in ("stdlib", "platstdlib"):
        top = Path(sysconfig.get_path(part))
        below = os.path.relpath(top, sys.base_prefix)
        found.update(_below(top, f"{PREFIX}/{below}"))
    return found


def _packages() -> dict[str, Path]:
    """Those that the registry loads, whole."""
    done = subprocess.run([sys.executable, "-c", _PROBE, *ENTRY], capture_output=True, check=False)
    if done.returncode:
        raise InvalidArgument(f"the registry does not load here: {done.stderr.decode(errors='replace').strip()}")
    found: dict[str, Path] = {}
    for name, places in _found.decode(done.stdout).items():
        for place in map(Path, places):
            if place.is_dir():
                found.update(_below(place, f"{PACKAGES}/{name}"))
            else:
                found[f"{PACKAGES}/{place.name}"] = place
    return found


def _ours() -> dict[str, Path]:
    spec = find_spec("shoal")
    assert spec is not None and spec.submodule_search_locations
    top = Path(next(iter(spec.submodule_search_locations)))
    found = {f"{PACKAGES}/shoal/__init__.py": top / "__init__.py"}
    for each in OURS:
        found.update(_below(top / each, f"{PACKAGES}/shoal/{each}"))
    return found


def _below(top: Path, where: str) -> Iterator[tuple[str, Path]]:
    """The files of a folder, but for those that are of no use."""
    for folder, folders, names in os.walk(top.resolve()):
        folders[:] = [each for each in folders if not UNUSED.fullmatch(each)]
        for path in (Path(folder, name) for name in names if not UNUSED.fullmatch(name)):
            yield f"{where}/{path.relative_to(top.resolve())}", path


def _ldd(programs: Iterable[Path]) -> str:
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    if missing := re.search(r"^\s+(\S+) => not found", done.stdout, re.MULTILINE):
        raise InvalidArgument(f"a shared library of the registry is not on this host: {missing[1]}")
    return done.stdout


def libraries(said: str) -> dict[str, Path]:
    """Of what `ldd` says: path in the image → library, by the names under which they are loaded."""
    found = {}
    for each in _LIBRARY.finditer(said):
        path = Path(each["path"])
        found[f"{LIBRARIES}/{each['name']}" if each["name"] else each["path"].lstrip("/")] = path
    return found


def environment(files: Collection[str]) -> dict[str, str]:
    """With which the image's Python finds all that."""
    found = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONHOME": f"/{PREFIX}",
             "PYTHONPATH": f"/{PACKAGES}", "LD_LIBRARY_PATH": f"/{LIBRARIES}"}
    return found | ({"SSL_CERT_FILE": f"/{AUTHORITIES}"} if AUTHORITIES in files else {})


def machine() -> str:
    """As the kernel names it."""
    return platform.machine()


def architecture() -> str:
    """As images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine(), machine())
