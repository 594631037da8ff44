"""`shoal image`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from shoal.cli.client import Client
from shoal.cli.dockerconfig import account_header
from shoal.cli.output import age, reading, short, table


@click.group()
def image() -> None:
    """Images of this host."""


@image.command()
@click.pass_obj
def ls(client: Client) -> None:
    """List the images."""
    rows = [
        [tag, short(found["Id"]), age(found["Created"]), f"{found['Size'] / 1e6:.1f} MB"]
        for found in client.call("GET", "/images/json")
        for tag in found.get("RepoTags") or ["<none>"]
    ]
    table(["IMAGE", "ID", "CREATED", "SIZE"], rows)


@image.command("import")
@click.option("-c", "--change", multiple=True, metavar="INSTRUCTION", help="As in a Dockerfile: CMD, ENV, …")
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.argument("reference")
@click.pass_obj
def import_(client: Client, change: tuple[str, ...], file: Path, reference: str) -> None:
    """Make an image of a tar of a root file system."""
    repository, tag = _name_and_tag(reference)
    query: dict[str, Any] = {"fromSrc": "-", "repo": repository, "tag": tag}
    if change:
        query["changes"] = "\n".join(change)
    _upload(client, "/images/create", query, file)


@image.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.pass_obj
def load(client: Client, file: Path) -> None:
    """Take in the images of an archive."""
    _upload(client, "/images/load", {"quiet": True}, file)


def _upload(client: Client, path: str, query: dict[str, Any], file: Path) -> None:
    with (sys.stdin.buffer if str(file) == "-" else file.open("rb")) as archive, reading(archive, "sending") as content:
        for message in client.upload(path, query, content):
            click.echo((message.get("stream") or message.get("status") or "").rstrip("\n"))


@image.command()
@click.option("--platform", default="", metavar="OS/ARCH", help="Of an image that is for several")
@click.argument("reference")
@click.pass_obj
def pull(client: Client, platform: str, reference: str) -> None:
    """Bring an image here from its registry. Accounts are those of `docker login`."""
    name, word = _name_and_tag(reference) if "@" not in reference else reference.split("@", 1)
    _tell(client, "/images/create", {"fromImage": name, "tag": word, "platform": platform}, account_header(reference))


@image.command()
@click.argument("reference")
@click.pass_obj
def push(client: Client, reference: str) -> None:
    """Send an image to the registry of its name. Accounts are those of `docker login`."""
    name, word = _name_and_tag(reference)
    _tell(client, f"/images/{name}/push", {"tag": word}, account_header(reference))


def _tell(client: Client, path: str, query: dict[str, Any], headers: dict[str, str]) -> None:
    """Do it, and show what is no mere figure of progress."""
    for message in client.messages("POST", path, query, headers=headers):
        if message.get("status") and not message.get("progress"):
            click.echo(f"{message['id']}: {message['status']}" if message.get("id") else message["status"])


def _name_and_tag(reference: str) -> tuple[str, str]:
    name, _, tag = reference.rpartition(":") if ":" in reference.rpartition("/")[2] else (reference, "", "latest")
    return name, tag


@image.command()
@click.argument("reference")
@click.pass_obj
def inspect(client: Client, reference: str) -> None:
    """Everything known of an image."""
    click.echo(json.dumps(client.call("GET", f"/images/{reference}/json"), indent=2))


@image.command()
@click.argument("reference")
@click.argument("name")
@click.pass_obj
def tag(client: Client, reference: str, name: str) -> None:
    """Give an image another NAME."""
    repository, word = _name_and_tag(name)
    client.call("POST", f"/images/{reference}/tag", {"repo": repository, "tag": word})


@image.command()
@click.option("-f", "--force", is_flag=True)
@click.argument("references", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, force: bool, references: tuple[str, ...]) -> None:
    """Remove images."""
    for reference in references:
        for step in client.call("DELETE", f"/images/{reference}", {"force": force}):
            for word, what in step.items():
                click.echo(f"{word}: {what}")
