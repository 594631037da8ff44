"""Variables and quotes in the words of a Dockerfile. Pure.

Source of the rules: Docker's reference of the Dockerfile ("Environment replacement"), BuildKit's shell lexer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shoal.api.errors import InvalidArgument

_SPECIAL = "@*#?-$!0"
_QUOTES = "'\""


def expand(text: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """`text` as one word: variables replaced, quotes and escapes taken off. Raises InvalidArgument."""
    return _lexed(text, env, escape).text


def split(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As `expand`, but split where blanks stand outside of quotes; the blanks of a variable's value split too."""
    return _lexed(text, env, escape).finished()


def expand_content(text: str, env: Mapping[str, str]) -> str:
    """The variables of a heredoc's content; quotes are characters like any other."""
    return _lexed(text, env, "\\", quotes=False).text


def split_raw(text: str) -> list[str]:
    """Words with their quotes, escapes and variables as they are written."""
    return _lexed(text, {}, "\\", raw=True).finished()


def _lexed(text: str, env: Mapping[str, str], escape: str, *, quotes: bool = True, raw: bool = False) -> _Words:
    try:
        return _Lexer(text, env, escape, quotes=quotes, raw=raw).run("")
    except _Wrong as error:
        raise InvalidArgument(f'failed to process "{text}": {error}') from None


class _Wrong(Exception):
    pass


class _Words:
    """What was read, both whole and in words."""

    def __init__(self) -> None:
        self.text = ""
        self._words: list[str] = []
        self._open: str | None = None  # the word that is being read

    def add(self, text: str, *, splits: bool) -> None:
        self.text += text
        if not splits:
            self._open = (self._open or "") + text
            return
        for character in text:
            if not character.isspace():
                self._open = (self._open or "") + character
            elif self._open:
                self._words.append(self._open)
                self._open = None

    def finished(self) -> list[str]:
        return [*self._words, self._open] if self._open else self._words


class _Lexer:
    def __init__(self, text: str, env: Mapping[str, str], escape: str, *, quotes: bool, raw: bool) -> None:
        self._text = text
        self._at = 0
        self._env = env
        self._escape = escape
        self._quotes = quotes
        self._raw = raw

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def run(self, stop: str, *, keep_escapes: bool = False) -> _Words:
        """Everything up to `stop` (taken off too), or to the end where that is empty."""
        words = _Words()
        while character := self._peek():
            if character == stop:
                self._at += 1
                return words
            if character == "$":
                words.add(self._variable(), splits=True)
            elif character in _QUOTES and self._quotes:
                words.add(self._quoted(), splits=False)
            elif character == self._escape:
                self._at += 1
                if keep_escapes or self._raw:
                    words.add(character, splits=False)
                words.add(self._next(), splits=False)
            elif self._text.startswith("<<", self._at):  # blanks behind it belong to the heredoc's word
                blanks = re.compile(r"<<[ \t\r]*").match(self._text, self._at)
                assert blanks is not None
                self._at = blanks.end()
                words.add(blanks[0], splits=False)
            else:
                words.add(self._next(), splits=True)
        if stop:
            raise _Wrong("syntax error: missing '}'" if stop == "}" else f"syntax error: missing '{stop}' in ${{}}")
        return words

    def _quoted(self) -> str:
        quote, begin, text = self._next(), self._at - 1, ""
        while (character := self._peek()) != quote:
            if not character:
                kind = "single" if quote == "'" else "double"
                raise _Wrong(f"unexpected end of statement while looking for matching {kind}-quote")
            if character == "$" and quote == '"':
                text += self._variable()
                continue
            self._at += 1
            if character == self._escape and quote == '"':
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._escape):
                    character = self._next()
            text += character
        self._at += 1
        return self._text[begin : self._at] if self._raw else text

    def _variable(self) -> str:
        begin = self._at
        self._at += 1
        value = self._braces() if self._peek() == "{" else self._plain()
        return self._text[begin : self._at] if self._raw else value

    def _plain(self) -> str:
        name = self._name()
        return self._env.get(name, "") if name else "$"

    def _name(self) -> str:
        first = self._peek()
        if first and first in _SPECIAL and not first.isdigit():
            return self._next()
        pattern = r"\d+" if first.isdigit() else r"[^\W\d]\w*"
        found = re.compile(pattern).match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _braces(self) -> str:
        self._at += 1
        if not self._peek():
            raise _Wrong("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _Wrong("syntax error: bad substitution")
        name = self._name()
        value, operator = self._env.get(name), self._next()
        if operator == "}":
            return value or ""
        if operator == "/":
            return self._replaced(value or "")
        colon = operator == ":"
        if colon:
            operator = self._next()
        if not operator:
            raise _Wrong("syntax error: missing '}'")
        if operator not in "+-?#%" or (colon and operator in "#%"):
            raise _Wrong(f"unsupported modifier ({':' if colon else ''}{operator}) in substitution")
        word = self.run("}", keep_escapes=operator in "#%").text
        return _modified(name, value, operator, word, empty_is_unset=colon)

    def _replaced(self, value: str) -> str:
        every = self._peek() == "/"
        if every:
            self._at += 1
        pattern = _pattern(self.run("/", keep_escapes=True).text, greedy=True)
        replacement = self.run("}", keep_escapes=True).text
        return re.sub(pattern, lambda _: replacement, value, count=0 if every else 1, flags=re.DOTALL)


def _modified(name: str, value: str | None, operator: str, word: str, *, empty_is_unset: bool) -> str:
    missing = value is None or (empty_is_unset and not value)
    if operator == "-":
        return word if missing else value or ""
    if operator == "+":
        return "" if missing else word
    if operator == "?":
        if missing:
            state = "unset" if value is None else "empty"
            raise _Wrong(f"{name}: {word or f'is not allowed to be {state}'}")
        return value or ""
    greedy = word.startswith(operator)
    pattern = word[1:] if greedy else word
    if operator == "#":
        return _without_prefix(value or "", pattern, greedy)
    return _without_suffix(value or "", pattern, greedy)


def _without_prefix(value: str, pattern: str, greedy: bool) -> str:
    found = re.match(_pattern(pattern, greedy), value, re.DOTALL)
    return value[found.end() :] if found else value


def _without_suffix(value: str, pattern: str, greedy: bool) -> str:
    whole = re.compile(_pattern(pattern, greedy), re.DOTALL)
    cuts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    return next((value[:cut] for cut in cuts if whole.fullmatch(value, cut)), value)


def _pattern(text: str, greedy: bool) -> str:
    """A regular expression of a shell's pattern: `*` and `?`; a backslash takes them literally."""
    out, characters = "", iter(text)
    for character in characters:
        if character == "*":
            out += ".*" if greedy else ".*?"
        elif character == "?":
            out += "."
        elif character == "\\":
            following = next(characters, "")
            if following not in ("*", "?", "\\", "}", "/"):
                raise _Wrong(f"invalid pattern ({text}) in substitution: invalid escape '\\{following}'")
            out += re.escape(following)
        else:
            out += re.escape(character)
    return out
