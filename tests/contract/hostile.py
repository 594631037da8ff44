"""Requests that no client means: those that have to succeed, with parts replaced by what does not belong there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from tests.contract.exceptions import HIJACKED, NEVER_GOOD
from tests.contract.good import GOOD
from tests.contract.tame import BOUNDS
from tests.property.storage.archives import archives

LEFT_OUT = frozenset({*HIJACKED, "POST /containers/{id}/wait", "POST /swarm/leave", "POST /swarm/join"})
"""Those that stream or wait, and those that would end the swarm."""

LABELS = sorted(({*GOOD} | {*NEVER_GOOD}) - LEFT_OUT)

_NAMES = [
    "all", "author", "buildargs", "changes", "comment", "container", "copyUIDGID", "cpuperiod", "detachKeys",
    "details", "dockerfile", "extrahosts", "filters", "force", "fromImage", "fromSrc", "h", "id", "keep-storage",
    "labels", "limit", "link", "manifests", "message", "name", "names", "noOverwriteDirNonDir", "noprune", "path",
    "pause", "platform", "platforms", "ps_args", "quiet", "registryAuthFrom", "remote", "repo", "rollback",
    "rotateWorkerToken", "scope", "shmsize", "signal", "since", "size", "stderr", "stdout", "t", "tag", "tail",
    "target", "term", "timestamps", "type", "until", "unlockKey", "v", "verbose", "version", "w"]
_TEXTS = [
    "", " ", "/", ".", "..", "../../etc/passwd", "\0", "a\0b", "-1", "0", "1", "true", "null", "{}", "[]", '{"a":', "%",
    "%00", "a" * 5000, "\u202e", "caf\u00e9", "sha256:", "sha256:" + "a" * 64, "a" * 64, "busybox", "busybox:latest",
    "a/b/c:d@sha256:" + "0" * 64, "host", "container:", "container:x", "1.5.5.5", "10.0.0.0/8", "::/0", "80/tcp",
    "65536", "1e400", "9" * 40, "-9223372036854775809", "2026-01-01T00:00:00Z", "10m", "*", "[", "a=b", "=", "\n",
    "\r\nX: y"]
_NUMBERS = [0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1.5, -0.0, 1e300]
_FILTERS = [
    "before", "dangling", "driver", "event", "id", "label", "label!", "mode", "name", "reference", "since",
    "status", "type", "until", "x"]

texts = st.sampled_from(_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = st.none() | st.booleans() | st.sampled_from(_NUMBERS) | texts
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
                    max_leaves=6)
raw_bodies = st.sampled_from([b"", b"{", b"[]", b"null", b"5", b'"text"', b"[" * 5000, b'{"a":' * 2000, b"\xff\xfe",
                              b'{"Image": "\\ud800"}', b"{" + b'"a":1,' * 2000 + b'"b":2}', b"\0" * 100])
filters = st.dictionaries(
    st.sampled_from(_FILTERS),
    st.lists(texts, max_size=2) | st.dictionaries(texts, st.booleans(), max_size=2) | junk, max_size=3).map(json.dumps)


@dataclass(frozen=True)
class Hostile:
    """A request: what it is of, its path with the query, and its body."""

    label: str
    path: str
    body: bytes | None
    media_type: str

    @property
    def method(self) -> str:
        return self.label.partition(" ")[0]


@st.composite
def requests(draw: Any, names: Mapping[str, Sequence[str]], labels: Sequence[str] = LABELS) -> Hostile:
    """`names`: first part of a path → what there is for it to name."""
    label = draw(st.sampled_from(labels))
    good = draw(st.sampled_from(GOOD[label])) if GOOD.get(label) else None
    path, there = label.partition(" ")[2], names.get(label.split("/")[1], ())
    for key in ("{id}", "{name}"):
        if key in path:
            path = path.replace(key, quote(draw(st.sampled_from([*there * 20, *_TEXTS[3:]])), safe="/:@"))
    query = dict(good.query) if good and draw(st.booleans()) else {}
    for key in draw(st.lists(st.sampled_from([*query, *_NAMES]), max_size=3)):
        query[key] = draw(filters if key == "filters" else texts | junk.map(json.dumps))
    query |= BOUNDS.get(label, {})
    body, media_type = None, "application/json"
    if not label.startswith(("GET", "HEAD")):
        if good and isinstance(good.body, bytes):
            media_type, body = good.media_type or media_type, draw(mutated_bytes(good.body) | archives() | raw_bodies)
        else:
            meant = good.body if good else {}
            body = draw(st.just(None) | raw_bodies | mutated(meant).map(lambda value: json.dumps(value).encode()))
    return Hostile(label, f"{path}?{urlencode(query, doseq=True)}", body, media_type)


@st.composite
def mutated(draw: Any, value: Any) -> Any:
    """JSON, with one to three of its parts replaced, left out, or of another name."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        value = _mutated_once(draw, value)
    return value


def _mutated_once(draw: Any, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.integers(0, 9))
        if what == 0:
            return {name: part for name, part in value.items() if name != key}
        if what == 1:
            return {**value, draw(texts): draw(junk)}
        if what == 2:
            return {(name.swapcase() if name == key else name): part for name, part in value.items()}
        return {**value, key: _mutated_once(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _mutated_once(draw, value[place]), *value[place + 1:]]
    return draw(junk)


@st.composite
def mutated_bytes(draw: Any, content: bytes) -> bytes:
    """The beginning of it, with some bytes changed: of large ones only the first."""
    made = bytearray(content[:draw(st.integers(0, min(len(content), 20_000)))])
    for _ in range(draw(st.integers(0, 4))):
        if made:
            made[draw(st.integers(0, len(made) - 1))] = draw(st.integers(0, 255))
    return bytes(made)
