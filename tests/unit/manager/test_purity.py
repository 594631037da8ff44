"""Deciders neither wait, nor read a clock, nor draw lots, nor speak to anybody."""

import ast
from pathlib import Path

import pytest

MANAGER = Path(__file__).parents[3] / "manager"
IMPURE = {"aiohttp", "asyncio", "logging", "os", "pyroute2", "pysyncobj", "random", "secrets", "socket", "subprocess",
          "threading", "time", "uuid"}  # fmt: skip
FOLDERS = ("orchestrator", "allocator", "scheduler")
DISPATCHER = tuple(f"dispatcher/{each}.py" for each in (
    "assignments", "frames", "liveness", "release", "sessioninfo", "statuses", "told"))
FILES = (*DISPATCHER, "backlog.py", "deciders.py", "store/apply.py", "store/changes.py", "store/state.py")
MODULES = [str(path.relative_to(MANAGER)) for each in FOLDERS for path in (MANAGER / each).rglob("*.py")]
PURE = sorted([*MODULES, *FILES])


@pytest.mark.parametrize("module", PURE)
def test_imports_nothing_impure(module):
    tree = ast.parse((MANAGER / module).read_text())
    names = {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}
    names |= {each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in names} & IMPURE
