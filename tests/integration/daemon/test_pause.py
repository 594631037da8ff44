"""Pausing at the worst moment."""

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]


def test_a_container_can_be_paused_while_its_program_is_only_being_loaded(host: Machine) -> None:
    """runc's own threads stand still by then, and the program's start waits for their end."""
    answers = []
    for turn in range(40):
        host.call("POST", f"/containers/create?name=pause-{turn}", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
        host.call("POST", f"/containers/pause-{turn}/start")
        answers.append(host.call("POST", f"/containers/pause-{turn}/pause"))
        host.call("DELETE", f"/containers/pause-{turn}?force=1")
    assert answers == [(204, "")] * 40
