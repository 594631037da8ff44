"""Fixtures: a manager's port 2377 on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.manager.dispatcher.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    one = Site(tmp_path)
    await one.start()
    yield one
    await one.stop()
