"""What the build cache is asked for. Pure.

A step is found again where the image before it, and everything that Docker compares of the container that the step
would run in, are the same: user, command, environment, labels, ports, entrypoint and volumes. Times are no part of
it, so that a file that was only touched does not make a step be done again.

Source: moby, image/cache/compare.go; pkg/tarsum (version 1) for files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from shoal.engine.build.effects import State
from shoal.engine.images.config import HistoryEntry, ImageConfig


class Step(msgspec.Struct, frozen=True):
    """A step as the cache and the history know it."""

    key: str
    line: str  # of the history


def nop(state: State, comment: str, *, one_word: bool = False) -> Step:
    """A step that runs nothing. Docker writes some comments as a word of their own, some not."""
    marker = (f"#(nop) {comment}",) if one_word else ("#(nop) ", comment)
    return _step(state.config, (*state.shell, *marker))


def run(state: State, command: Sequence[str], extra: Iterable[str] = ()) -> Step:
    """A RUN; build arguments that it sees stand before it. `extra`: what else it is given (mounts, network)."""
    env = state.config.env
    recorded = state.args.recorded(env)
    words = (f"|{len(recorded)}", *recorded, *command) if state.args.environment(env) else tuple(command)
    return _step(msgspec.structs.replace(state.config, entrypoint=()), words, extra)


def _step(config: ImageConfig, command: Sequence[str], extra: Iterable[str] = ()) -> Step:
    compared = [config.user, list(command), list(config.env), sorted(config.labels.items()),
                sorted(config.exposed_ports), list(config.entrypoint), sorted(config.volumes), sorted(extra)]
    return Step("sha256:" + hashlib.sha256(msgspec.json.encode(compared)).hexdigest(), " ".join(command))


def combined(prefix: str, hashes: Iterable[str]) -> str:
    """One hash of several: `dir:…` of what is in a folder, `multi:…` of several sources."""
    return f"{prefix}:{hashlib.sha256(','.join(hashes).encode()).hexdigest()}"


def continues(history: Sequence[HistoryEntry], done: Sequence[HistoryEntry], line: str) -> bool:
    """Whether an image with that history (of --cache-from) did `done` and then `line`."""
    if len(history) <= len(done) or history[len(done)].created_by != line:
        return False
    return all(one.created_by == other.created_by and one.empty_layer == other.empty_layer
               for one, other in zip(done, history, strict=False))
