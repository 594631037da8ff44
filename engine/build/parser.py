"""A Dockerfile's text → its instructions, each with its line. Pure.

Reads as Docker reads: parser directives first, comments and continuations taken out, flags before the arguments,
JSON where an instruction may have it, heredocs below `ADD`, `COPY` and `RUN`. What the instructions
mean is `instructions`'s.

Source: Docker's reference of the Dockerfile, BuildKit's Dockerfile parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.build import words

MAX_LINE_CHARACTERS = 65535
MAX_DOCKERFILE_BYTES = 4 << 20

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"^(\d*)<<(-?)\s*([^<]*)$")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_JSON = ("CMD", "ENTRYPOINT", "RUN", "SHELL", "HEALTHCHECK", "ADD", "COPY", "VOLUME")
_LISTS = ("ADD", "COPY", "VOLUME", "FROM", "EXPOSE")



class Heredoc(msgspec.Struct, frozen=True):
    name: str
    content: str
    expand: bool  # whether variables in it are replaced: its word is not quoted


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction as it is written."""

    keyword: str  # upper case
    line: int  # where it begins, from 1
    original: str  # continuations joined; heredocs are not in it
    args: tuple[str, ...] = ()
    json: bool = False  # the arguments came as a JSON array
    flags: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    trigger: Node | None = None  # of ONBUILD


class Parsed(msgspec.Struct, frozen=True):
    nodes: tuple[Node, ...]
    escape: str
    warnings: tuple[str, ...] = ()
    name: str = "Dockerfile"


class _Malformed(Exception):
    pass


def parse(text: str, name: str = "Dockerfile") -> Parsed:
    """Raises InvalidArgument naming the file and the line."""
    if not text:
        raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
    reading = _Reading(text)
    try:
        nodes = tuple(reading.nodes())
    except (_Malformed, InvalidArgument) as error:
        where = f"{name}:{max(reading.begin, 1)}: {reading.text}"
        raise InvalidArgument(f"failed to parse {name}: {error} ({where})") from None
    if not nodes:
        raise InvalidArgument(f"failed to parse {name}: file with no instructions")
    return Parsed(nodes, reading.escape, tuple(reading.warnings), name)


def parse_trigger(text: str, escape: str = "\\") -> Node:
    """The instruction of an ONBUILD, as an image keeps it. Raises InvalidArgument."""
    nodes = parse(text, "ONBUILD").nodes if escape == "\\" else parse(f"# escape={escape}\n{text}", "ONBUILD").nodes
    if len(nodes) != 1:
        raise InvalidArgument("onbuild trigger should be a single expression")
    return nodes[0]


class _Reading:
    """One pass over the lines. `begin`, `text`: the line that the instruction at hand begins on, and it."""

    def __init__(self, text: str) -> None:
        self._lines: list[str] = re.findall(r"[^\n]*\n|[^\n]+", text.removeprefix("\ufeff"))
        self._at = 0
        self._directives: set[str] = set()
        self._head = True  # nothing but directives so far
        self.escape = "\\"
        self.begin = 0
        self.text = ""
        self.warnings: list[str] = []

    def nodes(self) -> Iterator[Node]:
        while self._at < len(self._lines):
            self.begin = self._at + 1
            line = self._line()
            if self._directive(line.strip()) or not line.strip() or line.lstrip().startswith("#"):
                continue
            whole = self.text = self._joined(line.lstrip())
            if not whole.strip():
                continue
            node = _node(whole, self.begin, self.escape)
            target = node.trigger or node
            if "<<" in whole and target.keyword in _WITH_HEREDOCS and not target.json:
                node = msgspec.structs.replace(node, heredocs=tuple(self._heredocs(whole)))
            yield node

    def _line(self) -> str:
        line = self._lines[self._at].rstrip("\r\n")
        self._at += 1
        if len(line) > MAX_LINE_CHARACTERS:
            raise _Malformed(f"dockerfile line greater than max allowed size of {MAX_LINE_CHARACTERS}")
        return line

    def _directive(self, line: str) -> bool:
        found = _DIRECTIVE.match(line) if self._head else None
        name = found[1].lower() if found else ""
        if found is None or name not in _DIRECTIVES:
            self._head = False
            return False
        if name in self._directives:
            raise _Malformed(f"only one {name} parser directive can be used")
        self._directives.add(name)
        if name == "escape":
            if found[2] not in ("`", "\\"):
                raise _Malformed(f"invalid escape token '{found[2]}' does not match ` or \\")
            self.escape = found[2]
        return True

    def _joined(self, line: str) -> str:
        """The line with those that continue it; comments between them are left out, and so are empty ones."""
        whole, more = self._cut(line)
        pieces, warned = [whole], False
        while more and self._at < len(self._lines):
            line = self._line()
            if line.lstrip().startswith("#"):
                continue
            if not line.strip():
                warned = True
                continue
            piece, more = self._cut(line)
            pieces.append(piece)
        if warned:
            self.warnings.append(f"Empty continuation line found in: {''.join(pieces)}")
        return "".join(pieces)

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without the sign that the next one continues it, and whether there was one."""
        bare = line.rstrip(" \t")
        if bare.endswith(self.escape) and not bare.endswith(self.escape * 2):
            return bare[:-1], True
        return line, False

    def _heredocs(self, line: str) -> Iterator[Heredoc]:
        for word in words.split_raw(line):
            if found := heredoc_word(word):
                name, strip_tabs, expand = found
                yield Heredoc(name, self._until(name, strip_tabs), expand)

    def _until(self, name: str, strip_tabs: bool) -> str:
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            line = line.lstrip("\t") if strip_tabs else line
            if line.rstrip("\r\n") == name:
                return "".join(content)
            content.append(line)
        raise _Malformed("unterminated heredoc")


def heredoc_word(word: str) -> tuple[str, bool, bool] | None:
    """(name, whether leading tabs go, whether variables are replaced) of a word such as <<-EOF; None for any other."""
    found = _HEREDOC.match(word)
    if not found or not found[3]:
        return None
    try:
        names = words.split(found[3], {})
    except InvalidArgument:
        return None
    if len(names) != 1:
        return None
    return names[0], found[2] == "-", not any(quote in found[3] for quote in "'\"")


def _node(line: str, number: int, escape: str) -> Node:
    keyword, _, rest = _partition(line.strip())
    flags, rest = _flags(rest.strip(), escape)
    upper = keyword.upper()
    made = Node(keyword=upper, line=number, original=line.strip(), flags=tuple(flags))
    if upper == "ONBUILD":
        trigger = _node(rest, number, escape) if rest else None
        return msgspec.structs.replace(made, args=(rest,) if rest else (), trigger=trigger)
    if upper == "HEALTHCHECK":
        kind, _, command = _partition(rest)
        values, is_json = _json_or_string(command)
        return msgspec.structs.replace(made, args=(kind, *values) if kind else (), json=is_json)
    args, is_json = _arguments(upper, rest, escape)
    return msgspec.structs.replace(made, args=args, json=is_json)


def _partition(text: str) -> tuple[str, str, str]:
    found = _BLANKS.search(text)
    return (text[: found.start()], " ", text[found.end() :]) if found else (text, "", "")


def _arguments(keyword: str, rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
    if not rest:
        return (), False
    if keyword in ("ENV", "LABEL"):
        return _pairs(keyword, rest, escape), False
    if keyword == "ARG":
        return tuple(bare_words(rest, escape)), False
    if keyword in _JSON:
        values, is_json = _json_or_string(rest)
        if is_json or keyword not in _LISTS:
            return values, is_json
    if keyword in _LISTS:
        return tuple(_BLANKS.split(rest)), False
    return (rest,), False


def _json_or_string(rest: str) -> tuple[tuple[str, ...], bool]:
    if rest.lstrip().startswith("["):
        try:
            values = json.loads(rest)
        except ValueError:
            return (rest,), False
        if isinstance(values, list):
            if not all(isinstance(value, str) for value in values):
                raise _Malformed("when using JSON array syntax, arrays must be comprised of strings only")
            return tuple(values), True
    return ((rest,) if rest else ()), False


def _pairs(keyword: str, rest: str, escape: str) -> tuple[str, ...]:
    """name, value, name, value, …; the old form `NAME all of the rest` too."""
    found = bare_words(rest, escape)
    if "=" not in found[0]:
        name, blank, value = _partition(rest)
        if not blank:
            raise _Malformed(f"{keyword} must have two arguments")
        return (name, value)
    pairs = []
    for word in found:
        name, equals, value = word.partition("=")
        if not equals:
            raise _Malformed(f"Syntax error - can't find = in \"{word}\". Must be of the form: name=value")
        pairs += [name, value]
    return tuple(pairs)


def bare_words(text: str, escape: str) -> list[str]:
    """Words split at blanks outside of quotes; quotes and escapes stay as they are."""
    found: list[str] = []
    word, quote, started, at = "", "", False, 0
    while at < len(text):
        character = text[at]
        at += 1
        if not quote and character.isspace():
            if started:
                found.append(word)
            word, started = "", False
            continue
        started = True
        if quote:
            if character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        if character == escape and quote != "'":
            if at == len(text):
                break  # at the end it escapes nothing
            word += character + text[at]
            at += 1
            continue
        word += character
    if started and word:
        found.append(word)
    return found


def _flags(rest: str, escape: str) -> tuple[list[str], str]:
    """The flags before the arguments, without their quotes, and what follows them."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, at = _flag_word(rest, escape)
        rest = rest[at:].lstrip()
        if word == "--":
            break
        flags.append(word)
    return flags, rest


def _flag_word(text: str, escape: str) -> tuple[str, int]:
    word, quote, at = "", "", 0
    while at < len(text):
        character = text[at]
        if not quote and character.isspace():
            break
        at += 1
        if character == escape and quote != "'" and at < len(text):
            character = text[at]
            at += 1
        elif quote and character == quote:
            quote = ""
            continue
        elif not quote and character in "'\"":
            quote = character
            continue
        word += character
    return word, at
