"""Where the contract test does not follow the specification, each with its reason. It may only get shorter,
but for errors of the specification that a new version brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

HIJACKED = {
    "POST /containers/{id}/attach": "hijacks the connection",
    "GET /containers/{id}/attach/ws": "becomes a WebSocket",
    "POST /exec/{id}/start": "hijacks the connection",
    "POST /session": "hijacks the connection",
}
"""Operations that are not called at all."""

_NO_PLUGINS = "there are no managed plugins: every name is 404"
_NO_REGISTRY = "there is no registry here"
_IN_TURN = "in test_a_swarm_is_left_and_made_again"

NEVER_GOOD = {
    "POST /build": "takes a context: tests/integration/daemon/test_build_corpus.py has many",
    "POST /auth": _NO_REGISTRY + "; tests/unit/images/test_login.py has some",
    "POST /images/{name}/push": _NO_REGISTRY,
    "GET /images/search": _NO_REGISTRY,
    "GET /distribution/{name}/json": _NO_REGISTRY,
    "PUT /volumes/{name}": "there are no cluster volumes",
    "DELETE /nodes/{id}": "the only node cannot be removed",
    "POST /swarm/init": _IN_TURN,
    "POST /swarm/leave": _IN_TURN,
    "POST /swarm/join": "takes two hosts: the tests of the lab have it",
    "GET /swarm/unlockkey": "not built yet",
    "POST /swarm/unlock": "not built yet",
    **dict.fromkeys((
        "GET /plugins/privileges", "POST /plugins/pull", "GET /plugins/{name}/json", "DELETE /plugins/{name}",
        "POST /plugins/{name}/enable", "POST /plugins/{name}/disable", "POST /plugins/{name}/upgrade",
        "POST /plugins/create", "POST /plugins/{name}/push", "POST /plugins/{name}/set"), _NO_PLUGINS),
    **{f"{method} /{noun}/{rest}": "not built yet" for noun in ("secrets", "configs") for method, rest in (
        ("POST", "create"), ("GET", "{id}"), ("DELETE", "{id}"), ("POST", "{id}/update"))},
}
"""Operations of which no request succeeds here, so that only refusals are seen."""

NOT_BUILT = {
    "POST /build": "outputs, and what is BuildKit's",
    "POST /secrets/create": "secrets",
    "POST /configs/create": "configs",
    "POST /swarm/init": "a new cluster of an old one's state",
    "POST /swarm/update": "locking managers (autolock)",
    "POST /services/create": "jobs, and what else docs/compatibility.md names",
    "POST /services/{id}/update": "as for create",
    "POST /containers/create": "options that docs/compatibility.md names",
    "POST /networks/create": "options that docs/compatibility.md names",
    "POST /networks/{id}/connect": "options that docs/compatibility.md names",
}
"""Operations that may answer 501: what is not there yet (docs/compatibility.md)."""

_SEQUENCE = "dockerd answers `update out of sequence` so; its clients look for the words"

STATUSES: dict[tuple[str, int], str] = {
    **{(label, 500): "dockerd answers so where a registry cannot be reached" for label in (
        "POST /images/create", "GET /images/search", "GET /distribution/{name}/json")},
    ("POST /swarm/update", 500): _SEQUENCE,
    ("POST /nodes/{id}/update", 500): _SEQUENCE,
    ("POST /services/{id}/update", 500): _SEQUENCE,
}
"""(operation, status) that dockerd gives, though the specification does not list it or the contract forbids it."""

STREAMS = frozenset({"GET /events"})
"""Operations whose answer is one value of the schema in each line."""


@dataclass(frozen=True)
class SpecificationError:
    """A place in an answer where the schema is not what dockerd answers."""

    operation: str  # a pattern, as of file names
    where: str  # a pattern of the path in the answer; * stands for an index
    why: str

    def covers(self, operation: str, where: str) -> bool:
        return fnmatchcase(operation, self.operation) and fnmatchcase(where, self.where)


SPECIFICATION_ERRORS = (
    SpecificationError("GET /containers/{id}/json", "HostConfig/MemorySwappiness",
                       "null where the limit is not set, as dockerd answers; any number would be a setting"),
    SpecificationError("GET /*", "*NetworkSettings/Networks/*/Aliases",
                       "null where none were asked for, as dockerd answers and docker-py's suite has it"),
    SpecificationError("GET /exec/{id}/json", "ExitCode", "null while the command has not ended, as dockerd answers"),
)
