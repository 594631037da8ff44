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

NOT_BUILT = {
    "POST /build": "building images",
    "GET /distribution/{name}/json": "registries",
    "POST /secrets/create": "secrets",
    "POST /configs/create": "configs",
    "POST /services/create": "jobs, and what else docs/compatibility.md names",
    "POST /services/{id}/update": "as for create",
    "POST /containers/create": "options that docs/compatibility.md names",
    "POST /networks/create": "options that docs/compatibility.md names",
    "POST /networks/{id}/connect": "options that docs/compatibility.md names",
}
"""Operations that may answer 501: what is not there yet (docs/compatibility.md)."""

_SEQUENCE = "dockerd answers `update out of sequence` so; its clients look for the words"

STATUSES: dict[tuple[str, int], str] = {
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
    SpecificationError("GET /containers/*json", "*NetworkSettings/Networks/*/Aliases",
                       "null where none were asked for, as dockerd answers and docker-py's suite has it"),
    SpecificationError("GET /exec/{id}/json", "ExitCode", "null while the command has not ended, as dockerd answers"),
)
