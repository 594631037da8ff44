"""The registry as a service of the swarm: where things are in its container, and its specification. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DATA = "/var/lib/registry"
SETTINGS = "/etc/registry"
PORT = 5000
LABEL = "shoal.registry"


def specification(name: str, image: str, node_id: str, port: int, volume: str, settings: str = "",
                  options: Sequence[str] = ()) -> dict[str, Any]:
    """One replica on the node that has the image and the data. `settings`: a folder of that host, shown read-only."""
    mounts: list[dict[str, Any]] = [{"Type": "volume", "Source": volume, "Target": DATA}]
    if settings:
        mounts.append({"Type": "bind", "Source": settings, "Target": SETTINGS, "ReadOnly": True})
    return {
        "Name": name,
        "Labels": {LABEL: ""},
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Ports": [
            {"Protocol": "tcp", "TargetPort": PORT, "PublishedPort": port, "PublishMode": "host"},
        ]},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image, "Mounts": mounts,
                "Args": ["serve", "--root", DATA, "--listen", f":{PORT}", *options],
            },
            "Placement": {"Constraints": [f"node.id=={node_id}"]},
            "RestartPolicy": {"Condition": "any"},
        },
    }
