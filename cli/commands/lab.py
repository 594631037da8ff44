"""`shoal lab`: several hosts on this machine."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable

import click

from shoal.cli.output import table
from shoal.lab import lab as labs
from shoal.lab.plan import HostPlan, LabPlan

_name = click.option("--name", default="lab", show_default=True, help="Which lab.")


@click.group()
def lab() -> None:
    """Several hosts on this machine: real daemons, joined by a network that can be cut."""


@lab.command()
@click.option("--managers", default=1, show_default=True)
@click.option("--workers", default=2, show_default=True)
@_name
def up(managers: int, workers: int, name: str) -> None:
    """Start the hosts and form the swarm."""
    begin = time.monotonic()
    made = labs.up(name, managers, workers, progress=lambda line: click.echo(line, err=True))
    click.echo(f"lab {name} is up after {time.monotonic() - begin:.1f} s")
    first = made.hosts[0].name
    suffix = "" if name == "lab" else f" --name {name}"
    click.echo(f'try: eval "$(shoal lab env {first}{suffix})"; docker node ls')


@lab.command()
@_name
def down(name: str) -> None:
    """End everything of the lab and remove what it made."""
    labs.down(name)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_name
def status(as_json: bool, name: str) -> None:
    """What each host is doing."""
    entries = labs.status(labs.load(name))
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    rows = [
        [
            entry["name"], entry["address"], "on" if entry["on"] else "off", "up" if entry["linked"] else "down",
            "answers" if entry["daemon"] else "-", entry["swarm"] or "-",
            "leader" if entry["leader"] else entry["role"] or "-",
        ]
        for entry in entries
    ]
    table(["HOST", "ADDRESS", "POWER", "LINK", "SHOALD", "SWARM", "ROLE"], rows)


@lab.command()
@click.argument("host")
@_name
def env(host: str, name: str) -> None:
    """Print the line that points clients at HOST's daemon."""
    found = labs.load(name)
    click.echo(f"export DOCKER_HOST={shlex.quote(f'unix://{found.socket(found.host(host))}')}")


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_name
def execute(host: str, command: tuple[str, ...], name: str) -> None:
    """Run COMMAND in HOST's namespaces: shoal lab exec m1 -- ip addr"""
    found = labs.load(name)
    sys.exit(labs.enter(found, found.host(host), command))


def _on_host(action: Callable[[LabPlan, HostPlan], None], word: str, text: str) -> None:
    @lab.command(word, help=text)
    @click.argument("host")
    @_name
    def command(host: str, name: str) -> None:
        found = labs.load(name)
        action(found, found.host(host))


_on_host(labs.cut, "cut", "Take HOST's link down.")
_on_host(labs.heal, "heal", "Bring HOST's link up again.")
_on_host(labs.kill, "kill", "SIGKILL to HOST's shoald and manager; its containers live on.")
_on_host(labs.crash, "crash", "Power HOST off: the link goes first, then every process on it.")
_on_host(labs.start, "start", "Power HOST on and start its daemon.")
