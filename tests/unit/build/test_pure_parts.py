"""What a Dockerfile says: words, patterns, instructions, stages."""

import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.ignore import Ignored, read_patterns
from shoal.engine.build import parser, stages, words
from shoal.engine.build.instructions import dockerfile

ENV = {"A": "value", "EMPTY": "", "P": "a/b/c.txt"}


@pytest.mark.parametrize(("text", "wanted"), [
    ("$A", "value"), ("${A}x", "valuex"), ("\\$A", "$A"), ("'$A'", "$A"), ("${NO:-d}", "d"), ("${EMPTY-d}", ""),
    ("${EMPTY:-d}", "d"), ("${A:+o}", "o"), ("${P#*/}", "b/c.txt"), ("${P##*/}", "c.txt"), ("${P%/*}", "a/b"),
    ("${P%%/*}", "a"), ("${P/b/x}", "a/x/c.txt"), ('"$A b"', "value b"),
])
def test_expand(text: str, wanted: str) -> None:
    assert words.expand(text, ENV) == wanted


def test_ignored() -> None:
    ignored = Ignored(read_patterns("# no\n*.md\n!keep.md\n**/deep\n"))
    assert [path for path in ("a.md", "keep.md", "x/deep/f", "deep", "b") if path in ignored] == [
        "a.md", "x/deep/f", "deep"]


def test_only_needed_stages() -> None:
    file = dockerfile(parser.parse("FROM a AS one\nFROM b AS two\nFROM c\nCOPY --from=two /x /x\n"))
    assert [stage.index for stage in stages.plan(file, "", {}).stages] == [1, 2]
    with pytest.raises(InvalidArgument, match=r"line 2: unknown instruction: FOO .*Dockerfile:2"):
        dockerfile(parser.parse("FROM a\nFOO b\n"))
