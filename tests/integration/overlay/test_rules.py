"""The rules as the kernel has them after any sequence of changes, against what was wanted."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.overlay import kernel, sandboxtable
from shoal.overlay.nft import Nft, NftError
from shoal.overlay.plan import plan_services

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

vips = st.integers(200, 204).map(lambda last: f"10.0.1.{last}")
backends = st.lists(st.integers(2, 9).map(lambda last: f"10.0.1.{last}"), unique=True, max_size=3).map(tuple)
wanted = st.dictionaries(vips, backends, max_size=5)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules") / "ns"
    with kernel.new_namespace(path):
        made = Nft()
    yield made
    kernel.delete_namespace(Path(path))


def in_kernel(context: Nft) -> dict[str, set[str]]:
    """VIP → backends, read back."""
    text = context.run("list table inet shoal")
    chains = {name: set(re.findall(r"10\.0\.1\.\d+", body))
              for name, body in re.findall(r"chain (s[0-9a-f]{8}) \{(.*?)\n\t\}", text, re.S)}
    maps = re.search(r"map vips \{(.*?)\n\t\}", text, re.S)
    dead = re.search(r"set dead \{(.*?)\n\t\}", text, re.S)
    assert maps and dead
    found = {vip: chains.pop(chain) for vip, chain in re.findall(r"(10\.0\.1\.\d+) : goto (s\w+)", maps[1])}
    assert not chains, "a chain was left that no VIP leads to"
    return found | {vip: set() for vip in re.findall(r"10\.0\.1\.\d+", dead[1])}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=wanted, steps=st.lists(wanted, max_size=5))
def test_changes_lead_where_they_should(context, first, steps):
    context.run(sandboxtable.table(40000, first))
    actual = first
    assert in_kernel(context) == {vip: set(found) for vip, found in first.items()}
    for step in steps:
        if ops := plan_services(step, actual):
            context.run(sandboxtable.commands(ops))
        actual = step
        assert in_kernel(context) == {vip: set(found) for vip, found in actual.items()}


def test_a_refused_transaction_changes_nothing(context):
    context.run(sandboxtable.table(40000, {"10.0.1.200": ("10.0.1.2",)}))
    before = in_kernel(context)
    with pytest.raises(NftError, match="refused"):
        context.run(sandboxtable.commands([sandboxtable.SetService("10.0.1.201", ("10.0.1.3",)),
                                           sandboxtable.DropService("10.0.1.209", ("10.0.1.3",))]))
    assert in_kernel(context) == before
