"""Host ports that are held for containers."""

import asyncio
import socket

import pytest

from shoal.api.sandbox import PublishedPort
from shoal.overlay.ports import HostPorts, PortTaken

PORT = PublishedPort(container_port=80, protocol="tcp", host_ip="127.0.0.1", host_port=0)


async def test_who_comes_before_the_rules_stand_is_reset_and_does_not_wait():
    ports = HostPorts()
    try:
        bound, = ports.take("c1", "web", [PORT])
        for _ in range(5):  # more than the listening socket's queue holds
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(30):
                    await ask(bound.host_port)
    finally:
        ports.close()


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.close()


async def test_a_port_is_held_until_it_is_freed():
    ports = HostPorts()
    bound, = ports.take("c1", "web", [PORT])
    with pytest.raises(PortTaken, match="port is already allocated"):
        ports.take("c2", "web", [bound])
    ports.free("c1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", bound.host_port), timeout=30)
    assert ports.take("c2", "web", [bound]) == (bound,)
    ports.close()
