"""What each instruction may say: its arguments and flags, checked before anything is built. Pure.

Source: Docker's reference of the Dockerfile; messages as dockerd has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.engine.build.parser import Heredoc, Node, Parsed, heredoc_word
from shoal.engine.images.changes import duration_ns

_STAGE_NAME = re.compile(r"^[a-z][a-z0-9-_.]*\Z")
_FLAGS: dict[str, frozenset[str]] = {
    "FROM": frozenset({"platform"}),
    "COPY": frozenset({"from", "chown", "chmod", "link", "exclude", "parents"}),
    "ADD": frozenset({"chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"}),
    "RUN": frozenset({"mount", "network", "security"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
}
_REPEATED = frozenset({"mount", "exclude"})
_BOOLEAN = frozenset({"link", "parents", "keep-git-dir", "unpack"})
_ONE = frozenset({"MAINTAINER", "WORKDIR", "USER", "STOPSIGNAL"})
_ANY = frozenset({"RUN", "CMD", "ENTRYPOINT"})
_SOME = frozenset({"ENV", "LABEL", "ARG", "EXPOSE", "VOLUME", "SHELL", "ONBUILD", "HEALTHCHECK", "FROM", "COPY", "ADD"})
KEYWORDS = _ONE | _ANY | _SOME


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """A node that may stand where it stands."""

    keyword: str
    text: str  # as the output shows it
    line: int
    args: tuple[str, ...] = ()
    json: bool = False
    flags: dict[str, str] = {}
    mounts: tuple[str, ...] = ()  # of RUN
    excludes: tuple[str, ...] = ()  # of COPY and ADD
    heredocs: tuple[Heredoc, ...] = ()
    literal: bool = False  # its arguments are not expanded

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Of ENV and LABEL."""
        return list(zip(self.args[::2], self.args[1::2], strict=True))

    def flag(self, name: str) -> bool:
        return self.flags.get(name) == "true"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """FROM and what follows it. `name` is in lower case, "" where it has none."""

    index: int
    base: str
    name: str
    platform: str
    text: str
    line: int
    instructions: tuple[Instruction, ...] = ()


class Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    global_args: tuple[Instruction, ...]  # ARG before the first FROM
    stages: tuple[Stage, ...]
    escape: str
    warnings: tuple[str, ...] = ()
    name: str = "Dockerfile"

    def where(self, line: int) -> str:
        return f"{self.name}:{line}"


def dockerfile(parsed: Parsed) -> Dockerfile:
    """The stages of a Dockerfile. Raises InvalidArgument naming file, line and instruction."""
    global_args: list[Instruction] = []
    stages: list[Stage] = []
    for node in parsed.nodes:
        try:
            made = instruction(node)
            if made.keyword == "FROM":
                stages.append(_stage(made, len(stages)))
            elif stages:
                stages[-1] = msgspec.structs.replace(
                    stages[-1], instructions=(*stages[-1].instructions, made))
            elif made.keyword == "ARG":
                global_args.append(made)
            else:
                raise InvalidArgument("no build stage in current context")
        except InvalidArgument as error:
            begin = f"dockerfile parse error line {node.line}: " if stages or node.keyword not in KEYWORDS else ""
            raise InvalidArgument(f"{begin}{error} ({parsed.name}:{node.line}: {node.original})") from None
    if not stages:
        raise InvalidArgument(f"no build stage in current context ({parsed.name} has no FROM)")
    _refuse_repeated_names(stages, parsed.name)
    return Dockerfile(global_args=tuple(global_args), stages=tuple(stages), escape=parsed.escape,
                      warnings=parsed.warnings, name=parsed.name)


def instruction(node: Node) -> Instruction:
    """Raises InvalidArgument where the node is no instruction, or not a well-formed one."""
    if node.keyword not in KEYWORDS:
        raise InvalidArgument(f"unknown instruction: {node.keyword}")
    _check_count(node)
    flags, mounts, excludes = _flags(node)
    made = Instruction(keyword=node.keyword, text=node.original, line=node.line, args=node.args, json=node.json,
                       flags=flags, mounts=mounts, excludes=excludes, heredocs=node.heredocs)
    check = _CHECKS.get(node.keyword)
    return check(made, node) if check is not None else made


def label_instruction(name: str, value: str) -> Instruction:
    """The LABEL that stands for one of --label."""
    return Instruction(keyword="LABEL", text=f"LABEL {name}={value}", line=0, args=(name, value), literal=True)


def _check_count(node: Node) -> None:
    count = len(node.args)
    if node.keyword in _ONE and count != 1:
        raise InvalidArgument(f"{node.keyword} requires exactly one argument")
    if node.keyword in _SOME - {"COPY", "ADD", "FROM"} and not count:
        raise InvalidArgument(f"{node.keyword} requires at least one argument")
    if node.keyword in ("COPY", "ADD") and count < 2:
        raise InvalidArgument(f"{node.keyword} requires at least two arguments, but only one was provided. "
                              "Destination could not be determined")


def _flags(node: Node) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    allowed = _FLAGS.get(node.keyword, frozenset())
    flags: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in _REPEATED}
    for flag in node.flags:
        name, equals, value = flag[2:].partition("=")
        if name not in allowed:
            raise InvalidArgument(f"Unknown flag: {name}")
        if name in _REPEATED:
            repeated[name].append(_given(name, equals, value))
            continue
        if name in flags:
            raise InvalidArgument(f"Duplicate flag specified: {name}")
        flags[name] = _truth(name, equals, value) if name in _BOOLEAN else _given(name, equals, value)
    return flags, tuple(repeated["mount"]), tuple(repeated["exclude"])


def _given(name: str, equals: str, value: str) -> str:
    if not equals:
        raise InvalidArgument(f"Missing a value on flag: {name}")
    return value


def _truth(name: str, equals: str, value: str) -> str:
    if equals and not value:
        raise InvalidArgument(f"Missing a value on flag: {name}")
    if value.lower() not in ("", "true", "false"):
        raise InvalidArgument(f"Expecting boolean value for flag {name}, not: {value}")
    return value.lower() or "true"


def _check_pairs(made: Instruction, node: Node) -> Instruction:
    if any(not name for name, _ in made.pairs):
        raise InvalidArgument(f"{made.keyword} names can not be blank")
    return made


def _check_arg(made: Instruction, node: Node) -> Instruction:
    if any(word.startswith("=") for word in made.args):
        raise InvalidArgument("ARG names can not be blank")
    return made


def _check_shell(made: Instruction, node: Node) -> Instruction:
    if not made.json:
        raise InvalidArgument(f"SHELL requires the arguments to be in JSON form, not {node.original}")
    return made


def _check_volume(made: Instruction, node: Node) -> Instruction:
    paths = tuple(path.strip() for path in made.args)
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return msgspec.structs.replace(made, args=paths)


def _check_expose(made: Instruction, node: Node) -> Instruction:
    return msgspec.structs.replace(made, args=tuple(sorted(made.args)))


def _check_onbuild(made: Instruction, node: Node) -> Instruction:
    assert node.trigger is not None
    keyword = node.trigger.keyword
    if keyword == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{keyword} isn't allowed as an ONBUILD trigger")
    instruction(node.trigger)
    heredocs = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return msgspec.structs.replace(made, args=(made.args[0] + heredocs,))


def _check_healthcheck(made: Instruction, node: Node) -> Instruction:
    health(made)
    return made


def _check_copy(made: Instruction, node: Node) -> Instruction:
    if heredoc_word(made.args[-1]) is not None and made.heredocs:
        raise InvalidArgument(f"{made.keyword} cannot accept a heredoc as a destination")
    if made.keyword == "ADD" and made.flag("keep-git-dir"):
        raise InvalidArgument("ADD --keep-git-dir: git repositories cannot be added here; clone them in a RUN")
    return made


def health(made: Instruction) -> HealthCheck:
    """What HEALTHCHECK says. Raises InvalidArgument."""
    kind, words = made.args[0].upper(), made.args[1:]
    if kind == "NONE":
        if words:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return HealthCheck(test=("NONE",))
    if kind != "CMD":
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    if not any(words):
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    retries = made.flags.get("retries", "0") or "0"
    if not retries.lstrip("-").isdecimal():
        raise InvalidArgument(f"--retries is no number: {retries}")
    if int(retries) < 0:
        raise InvalidArgument(f"--retries cannot be negative ({retries})")
    return HealthCheck(
        test=("CMD" if made.json else "CMD-SHELL", *words), interval_ns=_period(made.flags, "interval"),
        timeout_ns=_period(made.flags, "timeout"), start_period_ns=_period(made.flags, "start-period"),
        start_interval_ns=_period(made.flags, "start-interval"), retries=int(retries))


def _period(flags: Mapping[str, str], name: str) -> int:
    text = flags.get(name, "")
    period = duration_ns(text) if text and text != "0" else 0
    if 0 < period < 1_000_000:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return period


_CHECKS = {
    "ENV": _check_pairs, "LABEL": _check_pairs, "ARG": _check_arg, "SHELL": _check_shell, "VOLUME": _check_volume,
    "EXPOSE": _check_expose, "ONBUILD": _check_onbuild, "HEALTHCHECK": _check_healthcheck, "COPY": _check_copy,
    "ADD": _check_copy,
}


def _stage(made: Instruction, index: int) -> Stage:
    words = made.args
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise InvalidArgument("FROM requires either one or three arguments")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.match(name):
        raise InvalidArgument(f'invalid name for build stage: "{words[2]}", name can\'t start with a number or '
                              "contain symbols")
    return Stage(index=index, base=words[0], name=name, platform=made.flags.get("platform", ""), text=made.text,
                 line=made.line)


def _refuse_repeated_names(stages: Iterable[Stage], file: str) -> None:
    seen: set[str] = set()
    for stage in stages:
        if stage.name and stage.name in seen:
            raise InvalidArgument(f"{stage.name} stage name already used ({file}:{stage.line}: {stage.text})")
        seen.add(stage.name)


def shell_words(words: Sequence[str], is_json: bool, shell: Sequence[str]) -> tuple[str, ...]:
    """The command of a CMD, ENTRYPOINT or RUN: the exec form as it is, the shell form through the shell."""
    if is_json:
        return tuple(words)
    return (*(shell or ("/bin/sh", "-c")), " ".join(words)) if words else ()
