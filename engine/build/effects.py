"""What the instructions that only change the image's configuration do. Pure: a state in, a state out.

Beside the new state each gives the line that the history and the cache's key have of it, in Docker's words.

Source: moby, builder/dockerfile/dispatchers.go.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.build import words
from shoal.engine.build.args import Args
from shoal.engine.build.instructions import Instruction, health, shell_words
from shoal.engine.containers.health import merge as merge_health
from shoal.engine.containers.merge import parse_signal
from shoal.engine.images.config import ImageConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
_PROTOCOLS = ("tcp", "udp", "sctp")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A stage between two instructions."""

    config: ImageConfig
    args: Args
    author: str = ""
    command_set: bool = False  # by a CMD of this stage: an ENTRYPOINT leaves it alone

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    def environment(self) -> dict[str, str]:
        """What variables in an instruction stand for: ENV before ARG."""
        env = dict(entry.partition("=")[::2] for entry in self.config.env)
        return {**self.args.environment(self.config.env), **env}


def begin(config: ImageConfig, args: Args) -> State:
    """The state after FROM."""
    if not any(entry.startswith("PATH=") for entry in config.env):
        config = msgspec.structs.replace(config, env=(*config.env, DEFAULT_PATH))
    return State(config=config, args=args.new_stage())


def expanded(instruction: Instruction, env: Mapping[str, str], escape: str) -> Instruction:
    """The instruction with its variables replaced, where it is one that has them replaced. Raises InvalidArgument."""
    if instruction.literal or instruction.keyword not in _EXPANDED:
        return instruction
    flags = {name: words.expand(value, env, escape) if name in ("chown", "chmod", "checksum") else value
             for name, value in instruction.flags.items()}
    if instruction.keyword == "EXPOSE":
        args = [port for word in instruction.args for port in words.split(word, env, escape)]
    elif instruction.json and instruction.keyword in ("COPY", "ADD", "VOLUME"):
        args = [words.expand(word, env, escape) for word in instruction.args]
    else:
        args = [_expand_one(instruction.keyword, word, env, escape) for word in instruction.args]
    return msgspec.structs.replace(instruction, args=tuple(args), flags=flags)


def _expand_one(keyword: str, word: str, env: Mapping[str, str], escape: str) -> str:
    if keyword != "ARG" or "=" not in word:
        return words.expand(word, env, escape)
    name, _, value = word.partition("=")
    return f"{words.expand(name, env, escape)}={words.expand(value, env, escape)}"


_EXPANDED = frozenset({"ENV", "LABEL", "ADD", "COPY", "WORKDIR", "EXPOSE", "USER", "VOLUME", "STOPSIGNAL", "ARG"})


def apply(state: State, instruction: Instruction) -> tuple[State, str]:
    """The state after an (expanded) instruction, and its line for the history. Raises InvalidArgument, KeyError."""
    return _EFFECTS[instruction.keyword](state, instruction)


def changes_only_configuration(instruction: Instruction) -> bool:
    return instruction.keyword in _EFFECTS


def _with(state: State, **fields: object) -> State:
    return msgspec.structs.replace(state, config=msgspec.structs.replace(state.config, **fields))


def _env(state: State, instruction: Instruction) -> tuple[State, str]:
    env = dict(entry.partition("=")[::2] for entry in state.config.env)
    env.update(instruction.pairs)
    line = " ".join(f"{name}={value}" for name, value in instruction.pairs)
    return _with(state, env=tuple(f"{name}={value}" for name, value in env.items())), f"ENV {line}"


def _label(state: State, instruction: Instruction) -> tuple[State, str]:
    line = " ".join(f"{name}={value}" for name, value in instruction.pairs)
    return _with(state, labels={**state.config.labels, **dict(instruction.pairs)}), f"LABEL {line}"


def _maintainer(state: State, instruction: Instruction) -> tuple[State, str]:
    return msgspec.structs.replace(state, author=instruction.args[0]), f"MAINTAINER {instruction.args[0]}"


def _arg(state: State, instruction: Instruction) -> tuple[State, str]:
    args = state.args
    for word in instruction.args:
        name, equals, value = word.partition("=")
        args = args.declare(name, value if equals else None)
    return msgspec.structs.replace(state, args=args), f"ARG {' '.join(instruction.args)}"


def _cmd(state: State, instruction: Instruction) -> tuple[State, str]:
    command = shell_words(instruction.args, instruction.json, state.shell)
    state = _with(state, cmd=command)
    return msgspec.structs.replace(state, command_set=state.command_set or bool(command)), f"CMD {_quoted(command)}"


def _entrypoint(state: State, instruction: Instruction) -> tuple[State, str]:
    command = shell_words(instruction.args, instruction.json, state.shell)
    cmd = state.config.cmd if state.command_set else ()
    return _with(state, entrypoint=command, cmd=cmd), f"ENTRYPOINT {_quoted(command)}"


def _expose(state: State, instruction: Instruction) -> tuple[State, str]:
    ports = [port for word in instruction.args for port in exposed(word)]
    return (_with(state, exposed_ports=tuple(dict.fromkeys((*state.config.exposed_ports, *ports)))),
            f"EXPOSE {' '.join(instruction.args)}")


def _healthcheck(state: State, instruction: Instruction) -> tuple[State, str]:
    check = merge_health(health(instruction), state.config.healthcheck)  # what is not said stays as it was
    assert check is not None
    return _with(state, healthcheck=check), (
        f"HEALTHCHECK {_quoted(check.test)} {check.interval_ns} {check.timeout_ns} {check.start_period_ns} "
        f"{check.start_interval_ns} {check.retries}")


def _onbuild(state: State, instruction: Instruction) -> tuple[State, str]:
    return (_with(state, on_build=(*state.config.on_build, instruction.args[0])), f"ONBUILD {instruction.args[0]}")


def _shell(state: State, instruction: Instruction) -> tuple[State, str]:
    return _with(state, shell=instruction.args), f"SHELL [{' '.join(instruction.args)}]"


def _stop_signal(state: State, instruction: Instruction) -> tuple[State, str]:
    try:
        parse_signal(instruction.args[0])
    except InvalidArgument:
        raise InvalidArgument(f"Invalid signal: {instruction.args[0]}") from None
    return _with(state, stop_signal=instruction.args[0]), f"STOPSIGNAL {instruction.args[0]}"


def _user(state: State, instruction: Instruction) -> tuple[State, str]:
    return _with(state, user=instruction.args[0]), f"USER {instruction.args[0]}"


def _volume(state: State, instruction: Instruction) -> tuple[State, str]:
    if not all(path.strip() for path in instruction.args):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    paths = tuple(dict.fromkeys((*state.config.volumes, *instruction.args)))
    return _with(state, volumes=paths), f"VOLUME [{' '.join(instruction.args)}]"


_EFFECTS: dict[str, Callable[[State, Instruction], tuple[State, str]]] = {
    "ARG": _arg, "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck,
    "LABEL": _label, "MAINTAINER": _maintainer, "ONBUILD": _onbuild, "SHELL": _shell, "STOPSIGNAL": _stop_signal,
    "USER": _user, "VOLUME": _volume,
}


def working_dir(state: State, instruction: Instruction) -> State:
    """After WORKDIR; the folder is made by the caller."""
    path = instruction.args[0]
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    return _with(state, working_dir=posixpath.normpath(posixpath.join("/", state.config.working_dir, path)))


def exposed(word: str) -> list[str]:
    """["8000/tcp", "8001/tcp"] of 8000-8001. What comes before a colon is for hosts. Raises InvalidArgument."""
    numbers, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = (protocol or "tcp").lower()
    first, dash, last = numbers.partition("-")
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"Invalid proto: {protocol}")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    return [f"{number}/{protocol}" for number in range(low, high + 1)]


def _quoted(command: Iterable[str]) -> str:
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in command)}]"
