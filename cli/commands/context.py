"""`shoal context`: daemons by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from shoal.cli.contexts import FILES, Context, Contexts
from shoal.cli.endpoint import DEFAULT_HOST
from shoal.cli.output import table

OVERRIDES = ("SHOAL_HOST", "SHOAL_CONTEXT", "DOCKER_HOST")


@click.group()
def context() -> None:
    """Talk to many daemons by name."""


@context.command()
@click.argument("name")
@click.option("--host", required=True, metavar="URL", help="unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST")
@click.option("--description", default="")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificate of who signed the daemon's.")
@click.option("--cert", type=click.Path(path_type=Path), help="Certificate to show to the daemon.")
@click.option("--key", type=click.Path(path_type=Path), help="Its key.")
@click.option("--skip-tls-verify", is_flag=True, help="Take any certificate of the daemon.")
def create(name: str, host: str, description: str, ca: Path | None, cert: Path | None, key: Path | None,
           skip_tls_verify: bool) -> None:
    """Keep a daemon's address under NAME; its certificates are copied."""
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    files = {name: path for name, path in zip(FILES, (ca, cert, key), strict=True) if path is not None}
    Contexts.of_user().create(Context(name, host, description, skip_tls_verify), files)
    click.echo(name)


@context.command()
@click.option("-q", "--quiet", is_flag=True, help="Only the names.")
def ls(quiet: bool) -> None:
    """List the contexts; a star marks the one in use."""
    contexts = Contexts.of_user()
    found, current = contexts.all(), os.environ.get("SHOAL_CONTEXT") or contexts.current()
    if quiet:
        click.echo("\n".join(each.name for each in found))
        return
    table(["NAME", "DESCRIPTION", "HOST", "TLS"], [
        [f"{each.name} *" if each.name == current else each.name, each.description, each.host or DEFAULT_HOST,
         "yes" if each.certificates else ""] for each in found])


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Let commands go to NAME from now on."""
    Contexts.of_user().use(name)
    click.echo(name)
    if override := next((each for each in OVERRIDES if os.environ.get(each)), None):
        click.echo(f"Warning: {override} is set and wins over the context in use.", err=True)


@context.command()
def show() -> None:
    """Show the name of the context in use."""
    click.echo(os.environ.get("SHOAL_CONTEXT") or Contexts.of_user().current())


@context.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def inspect(names: tuple[str, ...]) -> None:
    """Show contexts in full; without a name the one in use."""
    contexts = Contexts.of_user()
    click.echo(json.dumps([_shown(contexts.get(name)) for name in names or (contexts.current(),)], indent=4))


def _shown(found: Context) -> dict[str, Any]:
    folder = found.certificates
    files = sorted(path.name for path in folder.iterdir()) if folder is not None else []
    return {"Name": found.name, "Host": found.host or DEFAULT_HOST, "Description": found.description,
            "SkipTLSVerify": found.skip_verify, "TLSFiles": files, "TLSFolder": str(folder or "")}


@context.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Forget contexts, their certificates included."""
    for name in names:
        Contexts.of_user().remove(name)
        click.echo(name)
