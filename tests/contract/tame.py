"""Made-up requests, steered: most name something that is there, and none streams, waits or takes the host apart."""

from __future__ import annotations

from typing import Any

from schemathesis import Case

BOUNDS: dict[str, dict[str, Any]] = {
    "GET /containers/{id}/logs": {"follow": False},
    "GET /containers/{id}/stats": {"stream": False, "one-shot": True},
    "POST /containers/{id}/wait": {"condition": "not-running"},
    "POST /containers/{id}/stop": {"t": 0},
    "POST /containers/{id}/restart": {"t": 0},
    "GET /events": {"until": "1"},
    "GET /services/{id}/logs": {"follow": False},
    "GET /tasks/{id}/logs": {"follow": False},
    "DELETE /nodes/{id}": {"force": False},
    "POST /swarm/leave": {"force": False},
}
"""Operation → what its query says, whatever was made up."""


def tame(case: Case, name: str, *, freely: bool) -> None:
    """`name`: what the path names, unless it is empty. Not `freely`: what a create needs is given."""
    label = case.operation.label
    if name:
        for key in set(case.path_parameters or {}) & {"id", "name"}:
            case.path_parameters[key] = name
    if label in BOUNDS:
        case.query = {**(case.query or {}), **BOUNDS[label]}
    if label == "POST /containers/{id}/wait" and name not in ("contract-over", "contract-still"):
        case.path_parameters["id"] = "contract-over"
    if not freely and isinstance(case.body, dict):
        if label == "POST /containers/create":
            case.body["Image"] = "busybox"
        if label in ("POST /networks/{id}/connect", "POST /networks/{id}/disconnect"):
            case.body["Container"] = "contract-running"
