"""What is started again by itself, and what is held back from it."""

from __future__ import annotations

import asyncio

import pytest

from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, RestartPolicy, State
from shoal.engine.containers.restarts import Restarts


def ended(name: str = "always", **state: int) -> Container:
    return Container(id="c1", name="one", created_ns=1, image_id="i", config=ContainerConfig(),
                     host=HostConfig(restart=RestartPolicy(name=name)), state=State(exit_code=1, **state))


async def nothing(container_id: str) -> None:
    pytest.fail("nobody asked for a start")


def test_policies_are_asked() -> None:
    restarts = Restarts(nothing)
    assert restarts.wanted(ended())
    assert not restarts.wanted(ended("no"))


def test_the_last_of_two_restarts_by_hand_ends_the_hold_back() -> None:
    restarts = Restarts(nothing)
    with restarts.by_hand("c1"):
        with pytest.raises(RuntimeError), restarts.by_hand("c1"):
            raise RuntimeError
        assert restarts.is_by_hand("c1") and not restarts.wanted(ended())
    assert not restarts.is_by_hand("c1") and restarts.wanted(ended())


def test_nothing_is_started_where_the_host_goes_down() -> None:
    restarts = Restarts(nothing)
    restarts.going_down = True
    assert not restarts.wanted(ended())


async def test_one_that_waits_can_be_given_up() -> None:
    started: list[str] = []

    async def start(container_id: str) -> None:
        started.append(container_id)
        restarts.begun(container_id)

    restarts = Restarts(start)
    restarts.later("first")  # it has no delay
    restarts.later("given up")
    restarts.give_up("given up")
    async with asyncio.timeout(30):
        while restarts.tasks:
            await asyncio.sleep(0)
    assert started == ["first"]
