"""The Raft library as shipped, beside the mended one: a second copy of its modules, untouched."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

NAME = "pysyncobj"
_modules: dict[str, ModuleType] = {}


def _mine(name: str) -> bool:
    return name == NAME or name.startswith(NAME + ".")


@contextmanager
def as_shipped() -> Iterator[ModuleType]:
    """Inside, `import pysyncobj` gives the untouched copy. Afterwards everything is as before."""
    mended = {name: module for name, module in sys.modules.items() if _mine(name)}
    for name in mended:
        del sys.modules[name]
    sys.modules.update(_modules)
    try:
        package = importlib.import_module(NAME)
        for part in ("journal", "node", "pickle", "serializer", "syncobj", "tcp_connection", "transport"):
            importlib.import_module(f"{NAME}.{part}")
        yield package
    finally:
        _modules.update({name: module for name, module in sys.modules.items() if _mine(name)})
        for name in _modules:
            sys.modules.pop(name, None)
        sys.modules.update(mended)
