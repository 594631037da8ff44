"""`shoal network`."""

from __future__ import annotations

import json

import click

from shoal.cli.client import Client
from shoal.cli.output import pairs, short, table


@click.group()
def network() -> None:
    """Networks of this host and of the swarm."""


@network.command()
@click.pass_obj
def ls(client: Client) -> None:
    """List the networks."""
    rows = [
        [short(found["Id"]), found["Name"], found["Driver"], found["Scope"]]
        for found in client.call("GET", "/networks")
    ]
    table(["ID", "NAME", "DRIVER", "SCOPE"], rows)


@network.command()
@click.option("-d", "--driver", default="bridge", show_default=True)
@click.option("--attachable", is_flag=True, help="Containers started by hand may join.")
@click.option("--internal", is_flag=True, help="No way out.")
@click.option("--subnet", default="")
@click.option("--label", multiple=True, metavar="KEY=VALUE")
@click.argument("name")
@click.pass_obj
def create(
    client: Client, driver: str, attachable: bool, internal: bool, subnet: str, label: tuple[str, ...], name: str
) -> None:
    """Make a network."""
    body = {
        "Name": name, "Driver": driver, "Attachable": attachable, "Internal": internal,
        "Labels": pairs(label, "label"), "IPAM": {"Config": [{"Subnet": subnet}] if subnet else []},
    }
    click.echo(client.call("POST", "/networks/create", body=body)["Id"])


@network.command()
@click.argument("reference")
@click.pass_obj
def inspect(client: Client, reference: str) -> None:
    """Everything known of a network."""
    click.echo(json.dumps(client.call("GET", f"/networks/{reference}"), indent=2))


@network.command()
@click.argument("references", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, references: tuple[str, ...]) -> None:
    """Remove networks."""
    for reference in references:
        client.call("DELETE", f"/networks/{reference}")
        click.echo(reference)
