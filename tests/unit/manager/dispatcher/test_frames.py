"""Messages that are too large for one frame."""

import pytest

from shoal.api.messages import Assignments, NetworkEndpoint, to_agent
from shoal.manager.dispatcher.frames import TooLarge, frames
from tests.unit.manager.dispatcher.records import task

TASKS = tuple(task(f"t{number}") for number in range(10))


def endpoint(number: int) -> NetworkEndpoint:
    return NetworkEndpoint(id=f"e{number}", network_id="w1", address="10.0.0.1", mac="02", node_id="n", node_addr="a")


ENDPOINTS = tuple(endpoint(number) for number in range(50))


def test_the_tasks_of_a_complete_message_stay_together_and_endpoints_follow():
    found = [to_agent.decode(each) for each in frames(
        Assignments(sequence=0, complete=True, tasks=TASKS, endpoints=ENDPOINTS), 1, 2500)]
    assert len(found) > 1 and found[0].tasks == TASKS
    assert [each.complete for each in found] == [True, *[False] * (len(found) - 1)]
    assert [each.sequence for each in found] == list(range(1, len(found) + 1))
    assert tuple(one for each in found for one in each.endpoints) == ENDPOINTS


def test_the_tasks_of_an_increment_are_shared_out():
    found = [to_agent.decode(each) for each in frames(Assignments(sequence=0, tasks=TASKS), 5, 700)]
    assert len(found) > 1 and tuple(one for each in found for one in each.tasks) == TASKS


@pytest.mark.parametrize("message", [
    pytest.param(Assignments(sequence=0, complete=True, tasks=TASKS), id="a-complete-s-tasks"),
    pytest.param(Assignments(sequence=0, endpoints=ENDPOINTS[:1]), id="one-record"),
    pytest.param(Assignments(sequence=0, tasks=TASKS[:1], endpoints=ENDPOINTS[:1]), id="two-records"),
])
def test_what_cannot_be_split_is_an_error(message):
    with pytest.raises(TooLarge):
        frames(message, 1, 50)
