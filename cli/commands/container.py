"""`shoal run`, `ps`, `exec`, `logs`, `stop`, `rm`: the containers of one host."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from typing import Any

import click

from shoal.cli.client import CHUNK, STDERR, Client, ClientError, demultiplex
from shoal.cli.output import age, pairs, short, size, table

_anything = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.pass_obj
def ps(client: Client, everything: bool, quiet: bool) -> None:
    """List containers."""
    found = client.call("GET", "/containers/json", {"all": everything})
    if quiet:
        click.echo("\n".join(short(entry["Id"]) for entry in found))
        return
    rows = [
        [short(entry["Id"]), entry["Image"], entry["Command"][:24], age(entry["Created"]), entry["Status"],
         ", ".join(name.lstrip("/") for name in entry["Names"])]
        for entry in found
    ]
    table(["CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"], rows)


@click.command(context_settings=_anything)
@click.option("-d", "--detach", is_flag=True)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends.")
@click.option("--name", default=None)
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-p", "--publish", multiple=True, metavar="[[IP:]PORT:]PORT[/PROTOCOL]")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET[:ro]")
@click.option("-w", "--workdir", default="")
@click.option("-u", "--user", default="")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE")
@click.option("--hostname", default="")
@click.option("--entrypoint", default=None)
@click.option("--network", default="default")
@click.option("-m", "--memory", default=None, metavar="SIZE")
@click.option("--cpus", type=float, default=0.0)
@click.option("--pids-limit", type=int, default=0)
@click.option("--restart", default="no", metavar="POLICY")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(client: Client, /, **options: Any) -> None:
    """Run COMMAND in a new container of IMAGE."""
    attached = not options["detach"]
    created = client.call("POST", "/containers/create", {"name": options["name"]}, _create_body(options, attached))
    container = created["Id"]
    if not attached:
        client.call("POST", f"/containers/{container}/start")
        click.echo(container)
        return
    query = {"stream": True, "stdin": options["interactive"], "stdout": True, "stderr": True}
    stream = client.hijack(f"/containers/{container}/attach", query)
    condition = "removed" if options["remove"] else "next-exit"
    ended: list[int] = []
    waiter = threading.Thread(target=lambda: ended.append(_wait(client, container, condition)), daemon=True)
    waiter.start()
    try:
        client.call("POST", f"/containers/{container}/start")
    except ClientError:
        if options["remove"]:
            with contextlib.suppress(ClientError):
                client.call("DELETE", f"/containers/{container}", {"force": True})
        raise
    _copy(stream, options["interactive"], options["tty"])
    waiter.join()
    sys.exit(ended[0] if ended else 125)


def _wait(client: Client, container: str, condition: str) -> int:
    code = client.call("POST", f"/containers/{container}/wait", {"condition": condition})["StatusCode"]
    assert isinstance(code, int)
    return code


def _create_body(options: dict[str, Any], attached: bool) -> dict[str, Any]:
    policy, _, count = options["restart"].partition(":")
    exposed, bindings = _ports(options["publish"])
    return {
        "Image": options["image"], "Cmd": list(options["command"]) or None, "Env": list(options["env"]),
        "Entrypoint": [options["entrypoint"]] if options["entrypoint"] else None,
        "WorkingDir": options["workdir"], "User": options["user"], "Hostname": options["hostname"],
        "Labels": pairs(options["label"], "label"), "Tty": options["tty"],
        "AttachStdin": options["interactive"], "OpenStdin": options["interactive"],
        "StdinOnce": options["interactive"], "AttachStdout": attached, "AttachStderr": attached,
        "ExposedPorts": exposed,
        "HostConfig": {
            "AutoRemove": options["remove"], "Binds": list(options["volume"]), "NetworkMode": options["network"],
            "PortBindings": bindings, "Memory": size(options["memory"]) or 0, "NanoCpus": int(options["cpus"] * 1e9),
            "PidsLimit": options["pids_limit"] or None,
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(count or 0)},
        },
    }


def _ports(words: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in words:
        rest, _, protocol = word.partition("/")
        host, _, target = rest.rpartition(":")
        address, _, published = host.rpartition(":")
        key = f"{target}/{protocol or 'tcp'}"
        exposed[key] = {}
        bindings.setdefault(key, []).append({"HostIp": address.strip("[]"), "HostPort": published})
    return exposed, bindings


@click.command("exec", context_settings=_anything)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True)
@click.option("-d", "--detach", is_flag=True)
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-u", "--user", default="")
@click.option("-w", "--workdir", default="")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(
    client: Client, interactive: bool, tty: bool, detach: bool, env: tuple[str, ...], user: str, workdir: str,
    container: str, command: tuple[str, ...],
) -> None:
    """Run COMMAND in a container that runs."""
    body = {
        "AttachStdin": interactive, "AttachStdout": not detach, "AttachStderr": not detach, "Tty": tty,
        "Env": list(env), "User": user, "WorkingDir": workdir, "Cmd": list(command),
    }
    made = client.call("POST", f"/containers/{container}/exec", body=body)["Id"]
    if detach:
        client.call("POST", f"/exec/{made}/start", body={"Detach": True})
        return
    stream = client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": tty})
    _copy(stream, interactive, tty)
    sys.exit(client.call("GET", f"/exec/{made}/json")["ExitCode"] or 0)


def _copy(stream: socket.socket, interactive: bool, tty: bool) -> None:
    """Carry the streams both ways until the container's end is closed."""
    with _raw_terminal(interactive and tty):
        if interactive:
            threading.Thread(target=_send_stdin, args=(stream,), daemon=True).start()
        if tty:
            while piece := stream.recv(CHUNK):
                _write(1, piece)
        else:
            for number, piece in demultiplex(stream):
                _write(2 if number == STDERR else 1, piece)


def _send_stdin(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(0, CHUNK):
            stream.sendall(piece)
        stream.shutdown(socket.SHUT_WR)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Any:
    if not (wanted and sys.stdin.isatty()):
        yield
        return
    import termios
    import tty as terminal

    before = termios.tcgetattr(0)
    terminal.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@click.command()
@click.option("-f", "--follow", is_flag=True)
@click.option("-n", "--tail", default="all", show_default=True)
@click.option("-t", "--timestamps", is_flag=True)
@click.argument("container")
@click.pass_obj
def logs(client: Client, follow: bool, tail: str, timestamps: bool, container: str) -> None:
    """What a container has written."""
    query = {"stdout": True, "stderr": True, "follow": follow, "tail": tail, "timestamps": timestamps}
    if client.call("GET", f"/containers/{container}/json")["Config"]["Tty"]:
        _write(1, client.text("GET", f"/containers/{container}/logs", query))
        return
    for number, piece in client.frames(f"/containers/{container}/logs", query):
        _write(2 if number == STDERR else 1, piece)


@click.command()
@click.option("-t", "--time", "timeout_s", type=int, default=None, help="Seconds to wait before it is killed.")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def stop(client: Client, timeout_s: int | None, containers: tuple[str, ...]) -> None:
    """Stop containers."""
    for container in containers:
        client.call("POST", f"/containers/{container}/stop", {"t": timeout_s})
        click.echo(container)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Running ones too.")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, force: bool, containers: tuple[str, ...]) -> None:
    """Remove containers."""
    for container in containers:
        client.call("DELETE", f"/containers/{container}", {"force": force})
        click.echo(container)
