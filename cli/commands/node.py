"""`shoal node`: the hosts of the swarm."""

from __future__ import annotations

import json
from typing import Any

import click

from shoal.cli.client import Client
from shoal.cli.output import pairs, table


@click.group()
def node() -> None:
    """The hosts of the swarm."""


@node.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.pass_obj
def ls(client: Client, quiet: bool) -> None:
    """List the nodes."""
    nodes = client.call("GET", "/nodes")
    if quiet:
        click.echo("\n".join(found["ID"] for found in nodes))
        return
    rows = [
        [found["ID"], found["Description"]["Hostname"], found["Status"]["State"], found["Spec"]["Availability"],
         _manager_word(found), found["Status"].get("Addr", "")]
        for found in nodes
    ]
    table(["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER", "ADDRESS"], rows)


def _manager_word(found: dict[str, Any]) -> str:
    manager = found.get("ManagerStatus") or {}
    return "leader" if manager.get("Leader") else manager.get("Reachability", "")


@node.command()
@click.argument("reference")
@click.pass_obj
def inspect(client: Client, reference: str) -> None:
    """Everything known of a node."""
    click.echo(json.dumps(client.call("GET", f"/nodes/{reference}"), indent=2))


@node.command()
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]))
@click.option("--role", type=click.Choice(["worker", "manager"]))
@click.option("--label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--label-rm", multiple=True, metavar="KEY")
@click.argument("reference")
@click.pass_obj
def update(
    client: Client, availability: str | None, role: str | None, label_add: tuple[str, ...], label_rm: tuple[str, ...],
    reference: str,
) -> None:
    """Change a node's availability, role or labels."""
    found = client.call("GET", f"/nodes/{reference}")
    spec = found["Spec"]
    spec["Availability"] = availability or spec["Availability"]
    spec["Role"] = role or spec["Role"]
    labels = {**(spec.get("Labels") or {}), **pairs(label_add, "label")}
    spec["Labels"] = {key: value for key, value in labels.items() if key not in label_rm}
    client.call("POST", f"/nodes/{found['ID']}/update", {"version": found["Version"]["Index"]}, spec)
    click.echo(reference)


@node.command()
@click.argument("references", nargs=-1, required=True)
@click.pass_context
def promote(ctx: click.Context, references: tuple[str, ...]) -> None:
    """Make nodes managers."""
    for reference in references:
        ctx.invoke(update, role="manager", reference=reference)


@node.command()
@click.argument("references", nargs=-1, required=True)
@click.pass_context
def demote(ctx: click.Context, references: tuple[str, ...]) -> None:
    """Make managers workers."""
    for reference in references:
        ctx.invoke(update, role="worker", reference=reference)


@node.command()
@click.option("-f", "--force", is_flag=True)
@click.argument("references", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, force: bool, references: tuple[str, ...]) -> None:
    """Remove nodes that have left."""
    for reference in references:
        client.call("DELETE", f"/nodes/{reference}", {"force": force})
        click.echo(reference)
