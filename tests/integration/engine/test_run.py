"""Containers that run: output, exit codes, and nothing left behind."""

from __future__ import annotations

import pytest

from shoal.api.errors import InvalidArgument

pytestmark = pytest.mark.root


async def test_output_and_exit_code(host):
    assert await host.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


async def test_program_that_is_not_there(host):
    container_id = await host.create("nosuch")
    with pytest.raises(InvalidArgument, match=r"OCI runtime create failed: .*\"nosuch\": executable file not found"):
        await host.engine.start(container_id)
    assert host.engine.get(container_id).state.exit_code == 127
