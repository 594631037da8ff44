"""A log that is kept within bounds, in a file that somebody else has opened."""

import logging
import os

import pytest

from shoal.manager.logfile import BoundedLog


@pytest.fixture
def descriptor(tmp_path):
    opened = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield opened
    os.close(opened)


def write(handler, count):
    for number in range(count):
        handler.emit(logging.LogRecord("l", logging.INFO, "", 0, f"line {number:04d} " + "x" * 90, None, None))


def test_the_file_stays_small_and_the_last_lines_are_kept(tmp_path, descriptor):
    handler = BoundedLog(descriptor, max_bytes=5000, look_every=10)
    write(handler, 1000)
    kept = (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_size <= 5000 + 11 * 110
    lines = kept.splitlines()
    assert [line[:9] for line in lines] == [f"line {number:04d}" for number in range(1000 - len(lines), 1000)]
    assert len(lines) >= 45


def test_within_bounds_nothing_is_cut(tmp_path, descriptor):
    write(BoundedLog(descriptor, max_bytes=5000, look_every=1), 40)
    assert not (tmp_path / "log.1").exists()
    assert len((tmp_path / "log").read_text().splitlines()) == 40


def test_what_is_no_file_is_left_alone():
    reading, writing = os.pipe()
    try:
        write(BoundedLog(writing, max_bytes=10, look_every=1), 3)
        assert os.read(reading, 4096).count(b"line") == 3
    finally:
        os.close(reading)
        os.close(writing)
