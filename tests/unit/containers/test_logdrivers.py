"""Log drivers: what each takes, what conmon is told, and what of the journal is a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.containers.logs import drivers, journal
from shoal.engine.containers.logs.logline import STDERR, STDOUT, Line, Pieces
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, LogConfig


def container(driver: str, **options: str) -> Container:
    return Container(id="0123456789abcdef", name="web", created_ns=1, image_id="sha256:" + "a" * 64,
                     config=ContainerConfig(image="nginx:1"), host=HostConfig(log=LogConfig(
                         driver=driver, options=options)))


@pytest.mark.parametrize(("driver", "flags"), [
    ("", ["--log-path", "k8s-file:/c/log"]),
    ("local", ["--log-path", "k8s-file:/c/log"]),
    ("none", ["--log-path", "off"]),
    ("journald", ["--log-path", "journald:", "--name", "web", "--log-tag", "0123456789ab"]),
])
def test_where_conmon_writes(driver: str, flags: list[str]) -> None:
    assert drivers.conmon_flags(container(driver), Path("/c")) == flags


@pytest.mark.parametrize(("template", "tag"), [
    ("", "0123456789ab"),
    ("{{.FullID}}", "0123456789abcdef"),
    ("a/{{ .Name }}/{{.ImageName}}", "a/web/nginx:1"),
    ("{{.ImageID}} {{.ImageFullID}}", f"{'a' * 12} sha256:{'a' * 64}"),
    ("plain", "plain"),
])
def test_tags(template: str, tag: str) -> None:
    made = container("journald", tag=template)
    drivers.check(made.host.log)
    assert drivers.tag(made) == tag


@pytest.mark.parametrize(("driver", "options", "status"), [
    ("carrier-pigeon", {}, 400),
    ("journald", {"max-size": "1m"}, 400),
    ("journald", {"labels": "a"}, 501),
    ("journald", {"tag": "{{.Secret}}"}, 400),
    ("journald", {"tag": "{{range .}}"}, 400),
    ("json-file", {"colour": "red"}, 400),
])
def test_what_is_refused(driver: str, options: dict[str, str], status: int) -> None:
    with pytest.raises(ShoalError) as raised:
        drivers.check(LogConfig(driver=driver, options=options))
    assert raised.value.status == status


def test_only_a_known_placeholder_is_replaced() -> None:
    """What a container is called is no template."""
    with pytest.raises(InvalidArgument):
        drivers.check(LogConfig(driver="journald", options={"tag": "{{.Name.x}}"}))


ENTRY = b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1795585048448164","PRIORITY":%s,"MESSAGE":%s%s}'
STAMP = b"2026-11-25T05:37:28.448164000+00:00"


@pytest.mark.parametrize(("priority", "message", "more", "line"), [
    pytest.param(b'"6"', b'"hello\\n"', b"", Line(STAMP, STDOUT, b"hello\n"), id="conmon keeps the newline"),
    pytest.param(b'"3"', b'"hello"', b"", Line(STAMP, STDERR, b"hello\n"), id="or takes it away"),
    pytest.param(b'"6"', b'"hel"', b',"CONTAINER_PARTIAL_MESSAGE":"true"', Line(STAMP, STDOUT, b"hel"), id="a piece"),
    pytest.param(b'"6"', b"[104,255,10]", b"", Line(STAMP, STDOUT, b"h\xff\n"), id="no text"),
    pytest.param(b'"6"', b"null", b"", Line(STAMP, STDOUT, b"\n"), id="nothing"),
])
def test_lines_of_entries(priority: bytes, message: bytes, more: bytes, line: Line) -> None:
    entry = journal.entry_of(ENTRY % (priority, message, more))
    assert entry is not None
    assert journal.line_of(entry) == line


@pytest.mark.parametrize("raw", [
    b"", b"{", b"[]", b'{"MESSAGE":"no cursor"}', ENTRY % (b'"6"', b"[300]", b""), ENTRY % (b'"6"', b'"\\ud800"', b""),
    ENTRY.replace(b"1795585048448164", b"soon") % (b'"6"', b'"x"', b""),
])
def test_what_is_no_entry_is_passed_over(raw: bytes) -> None:
    assert journal.entry_of(raw) is None


def test_pieces_of_the_two_streams_are_kept_apart() -> None:
    pieces = Pieces()
    assert pieces.join([Line(b"1", STDOUT, b"a"), Line(b"2", STDERR, b"x\n"), Line(b"3", STDOUT, b"b\n"),
                        Line(b"4", STDERR, b"y")]) == [Line(b"2", STDERR, b"x\n"), Line(b"1", STDOUT, b"ab\n")]
    assert pieces.rest() == [Line(b"4", STDERR, b"y")]
    assert pieces.rest() == []
