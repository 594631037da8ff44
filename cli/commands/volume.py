"""`shoal volume`."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from shoal.cli.client import Client
from shoal.cli.output import pairs, table


@click.group()
def volume() -> None:
    """Volumes of this host."""


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.pass_obj
def ls(client: Client, quiet: bool) -> None:
    """List the volumes."""
    found = client.call("GET", "/volumes")
    for warning in found["Warnings"] or ():
        click.echo(f"shoal: {warning}", err=True)
    if quiet:
        for each in found["Volumes"]:
            click.echo(each["Name"])
        return
    table(["DRIVER", "NAME"], [[each["Driver"], each["Name"]] for each in found["Volumes"]])


@volume.command()
@click.option("-d", "--driver", default="local", show_default=True, help="local, or a volume plugin.")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="For the driver.")
@click.option("--label", multiple=True, metavar="KEY=VALUE")
@click.argument("name", default="")
@click.pass_obj
def create(client: Client, driver: str, opt: tuple[str, ...], label: tuple[str, ...], name: str) -> None:
    """Make a volume; without a name, one that a prune takes away again."""
    body = {"Name": name, "Driver": driver, "DriverOpts": pairs(opt, "opt"), "Labels": pairs(label, "label")}
    click.echo(client.call("POST", "/volumes/create", body=body)["Name"])


@volume.command()
@click.argument("name")
@click.pass_obj
def inspect(client: Client, name: str) -> None:
    """Everything known of a volume."""
    click.echo(json.dumps(client.call("GET", _path(name)), indent=2))


@volume.command()
@click.option("-f", "--force", is_flag=True, help="Also where there is none, or its driver fails.")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, force: bool, names: tuple[str, ...]) -> None:
    """Remove volumes."""
    for name in names:
        client.call("DELETE", _path(name), {"force": int(force)})
        click.echo(name)


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that were given a name.")
@click.pass_obj
def prune(client: Client, everything: bool) -> None:
    """Remove the local volumes that no container uses."""
    wanted = json.dumps({"all": ["true"]} if everything else {})
    pruned: dict[str, Any] = client.call("POST", "/volumes/prune", {"filters": wanted})
    for name in pruned["VolumesDeleted"] or ():
        click.echo(name)
    click.echo(f"{pruned['SpaceReclaimed']} bytes are free again")


def _path(name: str) -> str:
    return f"/volumes/{quote(name, safe='')}"
