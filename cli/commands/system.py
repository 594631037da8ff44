"""`shoal system`: what is about the daemon itself."""

from __future__ import annotations

import os
import socket
import sys
import threading

import click

from shoal.cli.client import Client

CHUNK = 64 << 10


@click.group()
def system() -> None:
    """What is about the daemon itself."""


@system.command("dial-stdio", hidden=True)
@click.pass_obj
def dial_stdio(client: Client) -> None:
    """Carry one connection to the daemon over this command's input and output. ssh:// runs it."""
    connection = client.connect()
    threading.Thread(target=_send, args=(connection,), name="stdin", daemon=True).start()
    out = sys.stdout.buffer
    while data := connection.recv(CHUNK):
        out.write(data)
        out.flush()


def _send(connection: socket.socket) -> None:
    """The input, and its end; the answer goes on."""
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the daemon has gone, which the other way notices
