"""Which stages a build needs, and what each of them waits for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.build import words
from shoal.engine.build.instructions import Dockerfile, Instruction, Stage
from shoal.engine.build.mounts import mount_sources

SCRATCH = "scratch"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`stages`: those that are needed, in the order of the file. `bases`: what each one's FROM means, expanded;
    `platforms`: what its --platform does, "" where it has none.
    """

    stages: tuple[Stage, ...]
    bases: dict[int, str]
    platforms: dict[int, str]
    needs: dict[int, frozenset[int]]  # index of a stage → the stages that come before it

    @property
    def target(self) -> Stage:
        return self.stages[-1]


def plan(file: Dockerfile, target: str, from_args: Mapping[str, str]) -> Plan:
    """What `target` ("" means the last stage) takes. Raises InvalidArgument for no such stage, or a wrong reference."""
    last = _target(file, target)
    stages = file.stages[: last + 1]
    bases = {stage.index: _base(stage, from_args, file) for stage in stages}
    platforms = {stage.index: words.expand(stage.platform, from_args, file.escape) for stage in stages}
    needs = {stage.index: frozenset(_needs(stage, stages, bases[stage.index], file)) for stage in stages}
    needed, waiting = set(), [last]
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += needs[index]
    return Plan(stages=tuple(stage for stage in stages if stage.index in needed), bases=bases,
                platforms=platforms, needs={index: needs[index] for index in needed})


def find(stages: Sequence[Stage], reference: str, before: int) -> int | None:
    """The stage that a reference in stage `before` means, by name or number; None: it is an image.

    Raises InvalidArgument for the stage itself or a later one.
    """
    for stage in stages[:before]:
        if stage.name and stage.name == reference.lower():
            return stage.index
    if not reference.isdecimal():
        return None
    if int(reference) == before:
        raise InvalidArgument(f"invalid from flag value {reference}: refers to current build stage")
    if int(reference) > before:
        raise InvalidArgument(f"invalid from flag value {reference}: index out of bounds")
    return int(reference)


def references(instruction: Instruction) -> list[str]:
    """The stages or images whose files an instruction takes."""
    if instruction.keyword == "COPY" and "from" in instruction.flags:
        return [instruction.flags["from"]]
    return mount_sources(instruction.mounts)


def _target(file: Dockerfile, target: str) -> int:
    if not target:
        return len(file.stages) - 1
    for stage in file.stages:
        if stage.name and stage.name == target.lower():
            return stage.index
    if target.isdecimal() and int(target) < len(file.stages):
        return int(target)
    raise InvalidArgument(f"failed to reach build target {target} in Dockerfile")


def _base(stage: Stage, args: Mapping[str, str], file: Dockerfile) -> str:
    base = words.expand(stage.base, args, file.escape)
    if not base:
        raise InvalidArgument(f"base name ({stage.base}) should not be blank ({file.where(stage.line)}: {stage.text})")
    return base


def _needs(stage: Stage, stages: Sequence[Stage], base: str, file: Dockerfile) -> set[int]:
    found = {other.index for other in stages[: stage.index] if other.name and other.name == base.lower()}
    for instruction in stage.instructions:
        for reference in references(instruction):
            try:
                index = find(stages, reference, stage.index)
            except InvalidArgument as error:
                raise InvalidArgument(f"{error} ({file.where(instruction.line)}: {instruction.text})") from None
            if index is not None:
                found.add(index)
    return found
