"""Progress: bars on a terminal, lines elsewhere, and nothing of what is read is changed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

from shoal.cli.output import counting, reading


def on_a_terminal(script: str) -> tuple[bytes, str]:
    """What a program writes to stdout, and to a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    try:
        with (tempfile.TemporaryFile() as output,  # a pipe would fill up: it is read after the terminal
              subprocess.Popen([sys.executable, "-c", script], stdout=output, stderr=theirs,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}) as process):
            os.close(theirs)
            shown = b""
            try:
                while data := os.read(ours, 65536):
                    shown += data
            except OSError:  # the terminal's other end is closed
                pass
            assert process.wait() == 0, shown
            output.seek(0)
            said = output.read()
    finally:
        os.close(ours)
    return said, shown.decode()


def test_counting_without_a_terminal_says_each_change_once(capsys):
    with counting("tasks run") as show:
        for done in (0, 0, 1, 1, 2):
            show(done, 2)
    assert capsys.readouterr().err.splitlines() == ["0 of 2 tasks run", "1 of 2 tasks run", "2 of 2 tasks run"]


def test_counting_on_a_terminal_draws_a_bar():
    _, shown = on_a_terminal("from shoal.cli.output import counting\nwith counting('tasks run') as show: show(1, 2)")
    assert "tasks run" in shown and "50%" in shown


def test_a_file_is_read_unchanged(tmp_path: Path):
    path = tmp_path / "archive"
    path.write_bytes(bytes(range(256)) * 1000)
    with path.open("rb") as file, reading(file, "sending") as content:
        assert content.read() == path.read_bytes()
    said, shown = on_a_terminal(
        "import sys; from shoal.cli.output import reading\n"
        f"with open({str(path)!r}, 'rb') as file, reading(file, 'sending') as content:\n"
        "    while data := content.read(4096): sys.stdout.buffer.write(data)")
    assert said == path.read_bytes()
    assert "sending" in shown
