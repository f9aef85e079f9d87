from __future__ import annotations

import os
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from swarm.base.clock import FakeClock
from swarm.model.log_driver import LogPolicy
from swarm.worker.logfile import MAX_LINE_BYTES, LineJoiner, LogLine
from swarm.worker.logs import POLICY_FILE, LogRotator, encode_policy, last_words, read

START = datetime(2026, 1, 1, tzinfo=UTC)


def record(number, *, stream="stdout", flag="F", text=None):
    stamp = (START + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{number:09d}+00:00 {stream} {flag} {number if text is None else text}\n".encode()


def write(path, numbers):
    with path.open("ab") as file:
        file.write(b"".join(record(number) for number in numbers))


async def texts(path, **how):
    return [line.data.decode() async for line in read(path, **how)]


def numbers(*spans):
    return [str(number) for span in spans for number in span]


def test_parts_of_a_line_are_joined_by_stream_over_chunk_borders():
    joiner = LineJoiner()
    whole = (
        record(1, flag="P", text="one ")
        + record(2, stream="stderr", text="error ")
        + record(3, flag="P", text="two ")
        + record(4, text="three")
        + b"garbage\n"
        + record(5, flag="P", text="rest")
    )
    lines = [line for byte in whole for line in joiner.feed(bytes([byte]))]
    assert [(line.stream, line.data) for line in lines] == [
        ("stderr", b"error "),
        ("stdout", b"one two three"),
    ]
    assert joiner.flush() == [LogLine("2026-01-01T00:00:05.000000005Z", "stdout", b"rest", partial=True)]
    assert joiner.flush() == []


def test_a_line_without_end_is_given_on_in_pieces():
    joiner = LineJoiner()
    part = record(1, flag="P", text="x" * (MAX_LINE_BYTES // 2))
    assert joiner.feed(part) == []
    (line,) = joiner.feed(part)
    assert line.partial
    assert len(line.data) == MAX_LINE_BYTES


def test_timestamps_are_told_in_utc():
    (line,) = LineJoiner().feed(b"2026-01-01T01:30:00.5+02:00 stderr F x\n")
    assert line.timestamp == "2025-12-31T23:30:00.500000000Z"
    assert line.time == datetime(2025, 12, 31, 23, 30, 0, 500_000, UTC)


async def test_a_missing_log_is_empty(tmp_path):
    assert await texts(tmp_path / "log") == []
    assert await texts(tmp_path / "log", tail=3) == []


async def test_rotated_files_are_read_oldest_first(tmp_path):
    write(tmp_path / "log.2", range(3))
    write(tmp_path / "log.1", range(3, 6))
    write(tmp_path / "log", range(6, 9))
    assert await texts(tmp_path / "log") == numbers(range(9))
    since = START + timedelta(seconds=7)
    assert await texts(tmp_path / "log", since=since) == ["7", "8"]


@pytest.mark.parametrize("tail", [0, 1, 3, 4, 8, 9, 20])
async def test_tail_counts_over_files(tmp_path, tail):
    write(tmp_path / "log.1", range(5))
    write(tmp_path / "log", range(5, 9))
    assert await texts(tmp_path / "log", tail=tail) == numbers(range(max(0, 9 - tail), 9))


async def test_tail_of_a_large_log_crosses_blocks(tmp_path):
    write(tmp_path / "log", range(20_000))
    for tail in (1, 1500, 1501, 9999, 19_999, 20_000):
        assert await texts(tmp_path / "log", tail=tail) == numbers(range(20_000 - tail, 20_000))


async def test_tail_counts_joined_lines(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(
        record(0) + record(1, flag="P", text="a") + record(2, text="b") + record(3, flag="P", text="end")
    )
    assert await texts(log, tail=1) == ["end"]
    assert await texts(log, tail=2) == ["ab", "end"]


async def test_a_follower_misses_nothing_over_rotations(tmp_path):
    log = tmp_path / "log"
    write(log, range(3))
    got = []
    ended = False
    async with aclosing(read(log, follow=True, has_ended=lambda: ended)) as lines:
        async for line in lines:
            got.append(line.data.decode())
            if got[-1] == "2":
                # Two rotations while the follower looks away; conmon still writes to the old file in between.
                log.rename(tmp_path / "log.1")
                write(tmp_path / "log.1", [3])
                write(log, [4])
                (tmp_path / "log.1").rename(tmp_path / "log.2")
                log.rename(tmp_path / "log.1")
                write(tmp_path / "log.1", [5])
                write(log, [6])
                ended = True
    assert got == numbers(range(7))


async def test_a_follower_waits_while_the_new_file_is_not_there(tmp_path):
    log = tmp_path / "log"
    write(log, range(2))
    looks = 0

    def has_ended():
        nonlocal looks
        looks += 1
        if looks == 1:
            log.rename(tmp_path / "log.1")
        if looks == 2:
            write(tmp_path / "log.1", [2])
            write(log, [3])
        return looks > 3

    got = [line.data.decode() async for line in read(log, follow=True, has_ended=has_ended)]
    assert got == numbers(range(4))


@pytest.fixture
def bundle(tmp_path):
    bundle = tmp_path / "containers" / "c1"
    bundle.mkdir(parents=True)
    os.mkfifo(bundle / "ctl")
    (bundle / POLICY_FILE).write_text(encode_policy(LogPolicy(max_bytes=100)))
    return bundle


def test_a_full_log_is_rotated_and_conmon_asked_once(bundle):
    rotator = LogRotator(bundle.parent, FakeClock())
    reader = os.open(bundle / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(bundle / "log", [0])
        rotator.rotate_all()
        assert not (bundle / "log.1").exists()
        write(bundle / "log", range(1, 5))
        rotator.rotate_all()
        assert not (bundle / "log").exists()
        # conmon has not answered yet: a second request would cost lines.
        rotator.rotate_all()
        assert os.read(reader, 100) == b"2 0 0\n"
        for round_ in (1, 2, 3):
            write(bundle / "log", range(round_ * 10, round_ * 10 + 5))
            rotator.rotate_all()
            assert os.read(reader, 100) == b"2 0 0\n"
        assert sorted(entry.name for entry in bundle.iterdir()) == ["ctl", "log.1", "log.2", "log.json"]
        assert b" 30\n" in (bundle / "log.1").read_bytes()
        assert b" 20\n" in (bundle / "log.2").read_bytes()
    finally:
        os.close(reader)


def test_a_request_lost_by_a_kill_is_made_again(bundle):
    write(bundle / "log.1", [0])
    reader = os.open(bundle / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(bundle / "ctl", os.O_WRONLY)
    try:
        clock = FakeClock()
        rotator = LogRotator(bundle.parent, clock)
        rotator.rotate_all()
        clock.advance(timedelta(seconds=4))
        rotator.rotate_all()
        with pytest.raises(BlockingIOError):
            assert os.read(reader, 100) == b""
        clock.advance(timedelta(seconds=1))
        rotator.rotate_all()
        rotator.rotate_all()
        assert os.read(reader, 100) == b"2 0 0\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_the_log_of_an_ended_container_needs_no_answer(bundle):
    write(bundle / "log", range(10))
    LogRotator(bundle.parent, FakeClock()).rotate_all()
    assert (bundle / "log.1").exists()


def test_a_container_whose_output_is_not_kept_is_left_alone(bundle):
    (bundle / POLICY_FILE).write_text(encode_policy(LogPolicy(is_kept=False)))
    reader = os.open(bundle / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(bundle / "ctl", os.O_WRONLY)
    try:
        clock = FakeClock()
        rotator = LogRotator(bundle.parent, clock)
        rotator.rotate_all()
        clock.advance(timedelta(seconds=60))
        rotator.rotate_all()
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
    finally:
        os.close(reader)
        os.close(writer)


def test_each_container_keeps_as_many_files_as_it_asked_for(bundle):
    (bundle / POLICY_FILE).write_text(encode_policy(LogPolicy(max_bytes=100, max_files=1)))
    write(bundle / "log", range(10))
    LogRotator(bundle.parent, FakeClock()).rotate_all()
    assert not (bundle / "log").exists()
    assert not (bundle / "log.1").exists()


def test_last_words_are_one_plain_line_of_the_stream(tmp_path):
    log = tmp_path / "log"
    assert last_words(log, "stderr") == ""
    stamp = b"2026-01-01T00:00:00.0+00:00"
    lines = (
        b"stderr F first",
        b"stderr F \x1b[31mno \x07such\tfile\x1b[0m",
        b"stderr F  ",
        b"stdout F after",
    )
    log.write_bytes(b"".join(stamp + b" " + line + b"\n" for line in lines))
    assert last_words(log, "stderr") == "no such file"
    assert last_words(log, "stdout") == "after"
    log.write_bytes(b"x" * 100_000 + b"\n" + stamp + b" stderr F " + b"y" * 500 + b"\n")
    assert last_words(log, "stderr") == "y" * 255 + "…"
