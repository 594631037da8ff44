"""`shoal swarm`: make, join and leave a swarm."""

from __future__ import annotations

import click

from shoal.cli.client import Client

_addresses = [
    click.option("--advertise-addr", default="", help="Address at which other hosts reach this one."),
    click.option("--listen-addr", default="0.0.0.0:2377", show_default=True),
    click.option("--data-path-addr", default="", help="Address for overlay traffic, if another."),
    click.option("--availability", type=click.Choice(["active", "pause", "drain"]), default="active"),
]


def _with_addresses(command: click.decorators.FC) -> click.decorators.FC:
    for option in reversed(_addresses):
        command = option(command)
    return command


@click.group()
def swarm() -> None:
    """Make, join and leave a swarm."""


@swarm.command()
@_with_addresses
@click.option("--force-new-cluster", is_flag=True, help="Go on alone with this manager's state after a lost quorum.")
@click.pass_obj
def init(
    client: Client, advertise_addr: str, listen_addr: str, data_path_addr: str, availability: str,
    force_new_cluster: bool,
) -> None:
    """Make this host the first manager of a swarm."""
    body = {
        "AdvertiseAddr": advertise_addr, "ListenAddr": listen_addr, "DataPathAddr": data_path_addr,
        "Availability": availability, "ForceNewCluster": force_new_cluster,
    }
    node = client.call("POST", "/swarm/init", body=body)
    click.echo(f"Swarm initialized: this host ({node}) is a manager.\n")
    _show_join_command(client, "Worker")


@swarm.command()
@_with_addresses
@click.option("--token", required=True)
@click.argument("remote")
@click.pass_obj
def join(
    client: Client, advertise_addr: str, listen_addr: str, data_path_addr: str, availability: str, token: str,
    remote: str,
) -> None:
    """Join the swarm that REMOTE (host:port of a manager) belongs to."""
    body = {
        "AdvertiseAddr": advertise_addr, "ListenAddr": listen_addr, "DataPathAddr": data_path_addr,
        "Availability": availability, "JoinToken": token, "RemoteAddrs": [remote],
    }
    client.call("POST", "/swarm/join", body=body)
    manager = client.call("GET", "/info")["Swarm"]["ControlAvailable"]
    click.echo(f"This host joined a swarm as a {'manager' if manager else 'worker'}.")


@swarm.command()
@click.option("-f", "--force", is_flag=True)
@click.pass_obj
def leave(client: Client, force: bool) -> None:
    """Leave the swarm."""
    client.call("POST", "/swarm/leave", {"force": force})
    click.echo("Node left the swarm.")


@swarm.command()
@click.option("--dispatcher-heartbeat", type=float, required=True, metavar="SECONDS",
              help="How long a node may be silent before it is down.")
@click.pass_obj
def update(client: Client, dispatcher_heartbeat: float) -> None:
    """Change the swarm's settings."""
    found = client.call("GET", "/swarm")
    found["Spec"]["Dispatcher"]["HeartbeatPeriod"] = int(dispatcher_heartbeat * 1e9)
    client.call("POST", "/swarm/update", {"version": found["Version"]["Index"]}, found["Spec"])
    click.echo("Swarm updated.")


@swarm.command("join-token")
@click.option("-q", "--quiet", is_flag=True, help="Only the token.")
@click.option("--rotate", is_flag=True)
@click.argument("role", type=click.Choice(["worker", "manager"]))
@click.pass_obj
def join_token(client: Client, quiet: bool, rotate: bool, role: str) -> None:
    """Show, or replace, the token with which hosts join."""
    if rotate:
        found = client.call("GET", "/swarm")
        query = {"version": found["Version"]["Index"], f"rotate{role.capitalize()}Token": True}
        client.call("POST", "/swarm/update", query, found["Spec"])
    if quiet:
        click.echo(client.call("GET", "/swarm")["JoinTokens"][role.capitalize()])
    else:
        _show_join_command(client, role.capitalize())


def _show_join_command(client: Client, role: str) -> None:
    token = client.call("GET", "/swarm")["JoinTokens"][role]
    here = client.call("GET", "/info")["Swarm"]
    address = next(one["Addr"] for one in here["RemoteManagers"] if one["NodeID"] == here["NodeID"])
    click.echo(f"To add a {role.lower()}, run this on its host:\n")
    click.echo(f"    shoal swarm join --token {token} {address}\n")
