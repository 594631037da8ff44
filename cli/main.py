"""`shoal`: finds the command that was asked for and loads only that."""

from __future__ import annotations

import importlib
import sys

import click

from shoal.api.errors import ShoalError
from shoal.cli.client import Client

COMMANDS = {
    "build": ("build", "build"),
    "context": ("context", "context"),
    "doctor": ("doctor", "doctor"),
    "exec": ("container", "execute"),
    "image": ("image", "image"),
    "lab": ("lab", "lab"),
    "logs": ("container", "logs"),
    "network": ("network", "network"),
    "node": ("node", "node"),
    "ps": ("container", "ps"),
    "registry": ("registry", "registry"),
    "rm": ("container", "rm"),
    "run": ("container", "run"),
    "service": ("service", "service"),
    "stop": ("container", "stop"),
    "swarm": ("swarm", "swarm"),
    "system": ("system", "system"),
    "volume": ("volume", "volume"),
}
"""Command → (module of `shoal.cli.commands`, name in it)."""


class LazyGroup(click.Group):
    """Imports the module of a command when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"shoal.cli.commands.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-H", "--host", metavar="URL", help="Daemon to talk to: unix:///PATH, tcp://HOST:PORT, ssh://HOST.")
@click.option("-c", "--context", metavar="NAME",
              help="Daemon by name; else $SHOAL_HOST, $SHOAL_CONTEXT, $DOCKER_HOST, the context in use.")
@click.version_option(package_name="shoal", prog_name="shoal")
@click.pass_context
def shoal(ctx: click.Context, host: str | None, context: str | None) -> None:
    """A group of Linux hosts run as one Docker Engine."""
    ctx.obj = Client(host, context=context)


def main() -> None:
    """Entry point. Errors of ours are one line on stderr and exit code 1."""
    try:
        shoal(prog_name="shoal")
    except ShoalError as error:
        print(f"shoal: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
