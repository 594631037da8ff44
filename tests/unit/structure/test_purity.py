"""What calls itself pure stands in the contract that import-linter checks."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("api", "cli", "daemon", "engine", "lab", "manager", "overlay", "registry", "worker")
MARK = re.compile(r"\bPure(?!,? but)\b")  # "Pure but for …" names an exception, and is none of these
CONTRACT = "what is marked pure does no I/O, reads no clock and draws no lots"


def marked():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if MARK.search(ast.get_docstring(ast.parse(path.read_text())) or ""):
                yield "shoal." + str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")


@pytest.fixture(scope="module")
def contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(each["source_modules"] for each in contracts if each["name"] == CONTRACT)


@pytest.mark.parametrize("module", list(marked()))
def test_what_is_marked_pure_is_under_the_contract(module, contract):
    assert any(module == each or module.startswith(each + ".") for each in contract), (
        f"{module} says that it is pure: add it to the contract in pyproject.toml")
