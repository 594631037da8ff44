"""Fixtures: hosts with real manager processes. Loopback only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.manager.hosts import Hosts


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    some = Hosts(tmp_path)
    yield some
    await some.close()
