"""Both kinds of members, and the mark of a test that plays its scenario on each."""

import pytest

from tests.unit.manager.raft.mended import Mended
from tests.unit.manager.raft.stock import Stock

on_both = pytest.mark.parametrize("kind", [pytest.param(Mended, id="mended"), pytest.param(Stock, id="as-shipped")])
"""The scenario ends well on the mended members, and must not as shipped: `assert good is group.mended`."""
