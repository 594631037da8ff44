"""`shoal service`: what the swarm runs."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from shoal.cli.client import STDERR, Client, ClientError
from shoal.cli.dockerconfig import account_header
from shoal.cli.output import age, counting, pairs, short, size, table

POLL_S = 0.2
CONVERGE_TIMEOUT_S = 300.0
_anything = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def service() -> None:
    """What the swarm runs."""


@service.command(context_settings=_anything)
@click.option("--name", default="", help="By default the swarm makes one up.")
@click.option("--replicas", type=int, default=1, show_default=True)
@click.option("--mode", type=click.Choice(["replicated", "global"]), default="replicated", show_default=True)
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE")
@click.option("--network", multiple=True)
@click.option("-p", "--publish", multiple=True, metavar="PORT", help="mode=host,target=PORT[,published=PORT]")
@click.option("--constraint", multiple=True, metavar="EXPRESSION")
@click.option("--replicas-max-per-node", type=int, default=0)
@click.option("--reserve-memory", default=None, metavar="SIZE")
@click.option("--reserve-cpu", type=float, default=0.0)
@click.option("--limit-memory", default=None, metavar="SIZE")
@click.option("--limit-cpu", type=float, default=0.0)
@click.option("--limit-pids", type=int, default=0)
@click.option("--restart-condition", type=click.Choice(["any", "on-failure", "none"]), default="any")
@click.option("--with-registry-auth", is_flag=True, help="Its hosts may use your account at the image's registry.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it runs.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(client: Client, /, **options: Any) -> None:
    """Run COMMAND of IMAGE as a service."""
    account = account_header(options["image"]) if options["with_registry_auth"] else {}
    made = client.call("POST", "/services/create", body=_spec(options), headers=account)
    click.echo(made["ID"])
    if not options["detach"]:
        converge(client, made["ID"])


def _spec(options: dict[str, Any]) -> dict[str, Any]:
    replicated = options["mode"] == "replicated"
    return {
        "Name": options["name"] or f"service-{os.urandom(4).hex()}",
        "Labels": pairs(options["label"], "label"),
        "Mode": {"Replicated": {"Replicas": options["replicas"]}} if replicated else {"Global": {}},
        "EndpointSpec": {"Ports": [_port(word) for word in options["publish"]]},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": options["image"], "Args": list(options["command"]), "Env": list(options["env"]),
            },
            "Networks": [{"Target": name} for name in options["network"]],
            "Placement": {
                "Constraints": list(options["constraint"]), "MaxReplicas": options["replicas_max_per_node"],
            },
            "RestartPolicy": {"Condition": options["restart_condition"]},
            "Resources": {
                "Reservations": {
                    "MemoryBytes": size(options["reserve_memory"]) or 0, "NanoCPUs": int(options["reserve_cpu"] * 1e9),
                },
                "Limits": {
                    "MemoryBytes": size(options["limit_memory"]) or 0, "NanoCPUs": int(options["limit_cpu"] * 1e9),
                    "Pids": options["limit_pids"],
                },
            },
        },
    }


def _port(word: str) -> dict[str, Any]:
    """A port as the API has it, of docker's words: `[PUBLISHED:]TARGET[/PROTOCOL]`, or names and values with commas."""
    if "=" in word:
        found = pairs(word.split(","), "port")
    else:
        numbers, _, protocol = word.partition("/")
        published, _, target = numbers.rpartition(":")
        found = {"target": target, "published": published or "0", "protocol": protocol or "tcp"}
    unknown = found.keys() - {"target", "published", "protocol", "mode"}
    if unknown or not found.get("target", "").isdigit() or not found.get("published", "0").isdigit():
        raise click.BadParameter(f"{word!r} is no port: write mode=host,target=PORT,published=PORT")
    return {"Protocol": found.get("protocol", "tcp"), "TargetPort": int(found["target"]),
            "PublishedPort": int(found.get("published", "0")), "PublishMode": found.get("mode", "ingress")}


@service.command()
@click.pass_obj
def ls(client: Client) -> None:
    """List the services."""
    rows = []
    for found in client.call("GET", "/services", {"status": True}):
        count = found.get("ServiceStatus") or {}
        mode = "global" if "Global" in found["Spec"]["Mode"] else "replicated"
        image = found["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        running = f"{count.get('RunningTasks', 0)}/{count.get('DesiredTasks', 0)}"
        rows.append([short(found["ID"]), found["Spec"]["Name"], mode, running, image])
    table(["ID", "NAME", "MODE", "REPLICAS", "IMAGE"], rows)


@service.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those that ended too.")
@click.argument("reference")
@click.pass_obj
def ps(client: Client, everything: bool, reference: str) -> None:
    """List a service's tasks, with the reason where one does not run."""
    found = client.call("GET", f"/services/{reference}")
    nodes = {node["ID"]: node["Description"]["Hostname"] for node in client.call("GET", "/nodes")}
    tasks = client.call("GET", "/tasks", {"filters": {"service": [found["ID"]]}})
    tasks.sort(key=lambda task: (task.get("Slot", 0), task["CreatedAt"]))
    rows = [
        [short(task["ID"]), f"{found['Spec']['Name']}.{task.get('Slot') or short(task.get('NodeID', ''))}",
         nodes.get(task.get("NodeID", ""), "-"), task["DesiredState"],
         f"{task['Status']['State']} {age(task['Status']['Timestamp'])}",
         task["Status"].get("Err") or ""]
        for task in tasks
        if everything or task["DesiredState"] in ("running", "ready")
    ]
    table(["ID", "NAME", "NODE", "DESIRED", "STATE", "ERROR"], rows)


@service.command()
@click.argument("reference")
@click.pass_obj
def inspect(client: Client, reference: str) -> None:
    """Everything known of a service."""
    click.echo(json.dumps(client.call("GET", f"/services/{reference}"), indent=2))


@service.command()
@click.option("-d", "--detach", is_flag=True)
@click.argument("targets", nargs=-1, required=True, metavar="SERVICE=REPLICAS…")
@click.pass_obj
def scale(client: Client, detach: bool, targets: tuple[str, ...]) -> None:
    """Set the number of replicas."""
    for reference, word in pairs(targets, "target").items():
        if not word.isdigit():
            raise click.BadParameter(f"{reference}={word}: write a number of replicas")
        _change(client, reference, detach, lambda spec, count=int(word): _set_replicas(spec, count))


def _set_replicas(spec: dict[str, Any], count: int) -> None:
    if "Replicated" not in spec["Mode"]:
        raise ClientError(f"service {spec['Name']} is not replicated: it has one task on every node")
    spec["Mode"]["Replicated"]["Replicas"] = count


@service.command()
@click.option("--image", default=None)
@click.option("--args", default=None, help="The command, split at blanks.")
@click.option("--replicas", type=int, default=None)
@click.option("--env-add", multiple=True, metavar="NAME=VALUE")
@click.option("--env-rm", multiple=True, metavar="NAME")
@click.option("--label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--label-rm", multiple=True, metavar="KEY")
@click.option("--constraint-add", multiple=True)
@click.option("--constraint-rm", multiple=True)
@click.option("--force", is_flag=True, help="Replace the tasks although nothing changed.")
@click.option("-d", "--detach", is_flag=True)
@click.argument("reference")
@click.pass_obj
def update(client: Client, /, reference: str, detach: bool, **options: Any) -> None:
    """Change a service."""
    _change(client, reference, detach, lambda spec: _edit(spec, options))


def _edit(spec: dict[str, Any], options: dict[str, Any]) -> None:
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    if options["image"]:
        container["Image"] = options["image"]
    if options["args"] is not None:
        container["Args"] = options["args"].split()
    if options["replicas"] is not None:
        _set_replicas(spec, options["replicas"])
    gone = {*options["env_rm"], *(word.partition("=")[0] for word in options["env_add"])}
    kept = [word for word in container.get("Env") or [] if word.partition("=")[0] not in gone]
    container["Env"] = kept + list(options["env_add"])
    labels = {**(spec.get("Labels") or {}), **pairs(options["label_add"], "label")}
    spec["Labels"] = {key: value for key, value in labels.items() if key not in options["label_rm"]}
    placement = template.setdefault("Placement", {})
    constraints = [word for word in placement.get("Constraints") or [] if word not in options["constraint_rm"]]
    placement["Constraints"] = constraints + list(options["constraint_add"])
    if options["force"]:
        template["ForceUpdate"] = template.get("ForceUpdate", 0) + 1


def _change(client: Client, reference: str, detach: bool, edit: Any) -> None:
    found = client.call("GET", f"/services/{reference}")
    edit(found["Spec"])
    client.call("POST", f"/services/{found['ID']}/update", {"version": found["Version"]["Index"]}, found["Spec"])
    click.echo(reference)
    if not detach:
        converge(client, found["ID"])


@service.command()
@click.argument("references", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, references: tuple[str, ...]) -> None:
    """Remove services."""
    for reference in references:
        client.call("DELETE", f"/services/{reference}")
        click.echo(reference)


@service.command()
@click.option("-f", "--follow", is_flag=True)
@click.option("-n", "--tail", default="all", show_default=True)
@click.option("-t", "--timestamps", is_flag=True)
@click.argument("reference")
@click.pass_obj
def logs(client: Client, follow: bool, tail: str, timestamps: bool, reference: str) -> None:
    """What a service's tasks have written, wherever they run."""
    query = {"stdout": True, "stderr": True, "follow": follow, "tail": tail, "timestamps": timestamps}
    for number, piece in client.frames(f"/services/{reference}/logs", query):
        (sys.stderr if number == STDERR else sys.stdout).buffer.write(piece)
        sys.stdout.flush()


def converge(client: Client, service_id: str) -> None:
    """Show progress until as many tasks run as are wanted."""
    deadline = time.monotonic() + CONVERGE_TIMEOUT_S
    with counting("tasks run") as show:
        while time.monotonic() < deadline:
            found = client.call("GET", "/services", {"status": True, "filters": {"id": [service_id]}})
            count = (found[0].get("ServiceStatus") if found else None) or {}
            running, wanted = count.get("RunningTasks", 0), count.get("DesiredTasks", 0)
            show(running, wanted)
            updating = ((found[0].get("UpdateStatus") or {}).get("State") == "updating") if found else False
            if not updating and running >= wanted:
                return
            time.sleep(POLL_S)
    raise ClientError(f"the tasks do not all run yet; see why: shoal service ps {service_id}")
