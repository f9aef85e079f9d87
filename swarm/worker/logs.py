"""Container logs: read over rotated files, followed, and rotated without loss.

In: the `log` file that conmon appends to, with `log.1`, `log.2` ... older. Out: `LogLine`s in order.
Invariants: a follower passes from a file to the next only when the next exists, since conmon then writes
there alone; at most one request to reopen waits in conmon's FIFO, since a second would replace the file of
the first.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from swarm.base.clock import Clock
from swarm.base.log import get_logger
from swarm.model.log_driver import MAX_FILES, LogPolicy
from swarm.worker.logfile import LineJoiner, LogLine, is_record_end, is_record_part

IDLE_POLL_S = 0.1
_BLOCK = 64 * 1024
_MAX_INDEX = 1000
_REOPEN_PATIENCE_S = 5.0
_REOPEN = b"2 0 0\n"
_WORDS_LIMIT = 256
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


async def read(
    path: Path,
    *,
    tail: int | None = None,
    since: datetime | None = None,
    follow: bool = False,
    has_ended: Callable[[], bool] = lambda: True,
) -> AsyncIterator[LogLine]:
    """The lines of the log at `path`: the last `tail` ones, none older than `since`.

    With `follow`, goes on until `has_ended` says that nobody writes any more and all is read.
    """
    joiner = LineJoiner()
    files = _Files(path)
    try:
        if tail is not None:
            files.seek_tail(tail)
        async for chunk in _chunks(files, follow=follow, has_ended=has_ended):
            for line in joiner.feed(chunk):
                if since is None or line.time >= since:
                    yield line
            await asyncio.sleep(0)
        for line in joiner.flush():
            yield line
    finally:
        files.close()


async def _chunks(files: _Files, *, follow: bool, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    # What is there now; a program that writes faster than we read does not hold us.
    left = files.remaining_bytes()
    while left > 0 and (chunk := files.next_chunk(left)):
        left -= len(chunk)
        yield chunk
    while follow:
        # Asked first: what is written before the end is then still read.
        ended = has_ended()
        while chunk := files.next_chunk():
            yield chunk
        if files.open_newer():
            continue
        if ended:
            return
        await asyncio.sleep(IDLE_POLL_S)


def last_words(path: Path, stream: str) -> str:
    """The last line with something printable that the container wrote to `stream`; control characters out."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        start = max(0, os.fstat(descriptor).st_size - _BLOCK)
        joiner = LineJoiner()
        found = [*joiner.feed(os.pread(descriptor, _BLOCK, start)), *joiner.flush()]
    finally:
        os.close(descriptor)
    for line in reversed(found):
        text = printable(line.data) if line.stream == stream else ""
        if text:
            return text
    return ""


def printable(data: bytes) -> str:
    """One line of `data` without terminal sequences and control characters, and not too long."""
    text = _ESCAPES.sub("", data[:_BLOCK].decode(errors="replace"))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _WORDS_LIMIT else text[: _WORDS_LIMIT - 1] + "…"


class _Files:
    """The files of one log, opened, oldest first, whatever the rotator does meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptors = self._open_after(None)

    def next_chunk(self, limit: int = _BLOCK) -> bytes:
        """The next bytes; empty at the end of the newest file."""
        while self._descriptors:
            chunk = os.read(self._descriptors[0], min(limit, _BLOCK))
            if chunk or len(self._descriptors) == 1:
                return chunk
            os.close(self._descriptors.pop(0))
        return b""

    def remaining_bytes(self) -> int:
        sizes = (os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR) for fd in self._descriptors)
        return sum(max(0, size) for size in sizes)

    def open_newer(self) -> bool:
        """Append the files newer than the one read to its end; whether there are any.

        What that one got between the read and its rotation is read next, since it stays in the list.
        """
        known = os.fstat(self._descriptors[-1]).st_ino if self._descriptors else None
        newer = self._open_after(known)
        self._descriptors += newer
        return bool(newer)

    def seek_tail(self, lines: int) -> None:
        """Move to the start of the last `lines` lines, closing the files that hold none of them."""
        newest = len(self._descriptors) - 1
        for position in range(newest, -1, -1):
            descriptor = self._descriptors[position]
            offset, lines = _tail_start(descriptor, lines, is_newest=position == newest)
            if lines < 0:
                os.lseek(descriptor, offset, os.SEEK_SET)
                for older in self._descriptors[:position]:
                    os.close(older)
                del self._descriptors[:position]
                return

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open_after(self, known_inode: int | None) -> list[int]:
        """Descriptors of the files newer than `known_inode`, oldest first.

        From the newest on: a rotation in between then shows a file twice, which is seen, and hides none.
        While `log` itself is missing nothing is newer: conmon has not left the file that we know.
        """
        opened: list[int] = []
        seen: set[int] = set()
        for index in range(_MAX_INDEX):
            name = self._path.with_name(f"{self._path.name}.{index}") if index else self._path
            try:
                descriptor = os.open(name, os.O_RDONLY)
            except FileNotFoundError:
                if index == 0 and known_inode is None:
                    continue
                break
            inode = os.fstat(descriptor).st_ino
            if inode == known_inode:
                os.close(descriptor)
                break
            if inode in seen:
                os.close(descriptor)
                continue
            opened.append(descriptor)
            seen.add(inode)
        return opened[::-1]


def _tail_start(descriptor: int, wanted: int, *, is_newest: bool) -> tuple[int, int]:
    """Where the last `wanted` lines start, and -1; or 0 and how many are still wanted from older files."""
    is_last = is_newest
    for start, record in _records_backwards(descriptor):
        if is_last and wanted > 0 and is_record_part(record):
            # The log ends within a line: that counts as one.
            wanted -= 1
        is_last = False
        if is_record_end(record):
            if wanted == 0:
                return start + len(record) + 1, -1
            wanted -= 1
    return 0, wanted


def _records_backwards(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """(offset, record) of every newline-terminated record of a file, last first."""
    position = os.fstat(descriptor).st_size
    rest = b""
    is_unfinished = True
    while position > 0:
        step = min(_BLOCK, position)
        position -= step
        block = os.pread(descriptor, step, position) + rest
        rest, *records = block.split(b"\n")
        end = position + len(block)
        for record in reversed(records):
            start = end - len(record)
            # Behind the last newline is nothing, or a record that is being written.
            if not is_unfinished:
                yield start, record
            is_unfinished = False
            end = start - 1
    if rest and not is_unfinished:
        yield 0, rest


POLICY_FILE = "log.json"


def encode_policy(policy: LogPolicy) -> str:
    """For `POLICY_FILE` in a container's bundle, which the rotator reads."""
    return json.dumps({"kept": policy.is_kept, "bytes": policy.max_bytes, "files": policy.max_files})


def _policy(bundle: Path) -> LogPolicy:
    try:
        found = json.loads((bundle / POLICY_FILE).read_text())
        return LogPolicy(is_kept=found["kept"], max_bytes=found["bytes"], max_files=found["files"])
    except (OSError, ValueError, KeyError):
        return LogPolicy()


class LogRotator:
    """Keeps every container's log below the size and number of files of its policy."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._policies: dict[Path, LogPolicy] = {}
        self._sizes: dict[Path, int] = {}
        self._asked: dict[Path, float] = {}
        self._log = get_logger("logs")

    async def run(self) -> None:
        """Rotate for ever; looks more often while a log grows fast."""
        before = self._clock.monotonic()
        pause = 1.0
        while True:
            await asyncio.sleep(pause)
            now = self._clock.monotonic()
            growth = self.rotate_all()
            before, elapsed = now, max(now - before, 0.001)
            # A tenth of a file at most between two looks.
            pause = min(1.0, max(0.05, elapsed / 10 / growth)) if growth > 0 else 1.0

    def rotate_all(self) -> float:
        """Rotate what is too large; returns how much of its file the fastest log has grown since last."""
        sizes: dict[Path, int] = {}
        fastest = 0.0
        bundles = self._bundles()
        self._policies = {bundle: self._policies.get(bundle) or _policy(bundle) for bundle in bundles}
        for bundle, policy in self._policies.items():
            if not policy.is_kept:
                continue
            try:
                size = (bundle / "log").stat().st_size
                self._asked.pop(bundle, None)
                fastest = max(fastest, (size - self._sizes.get(bundle, 0)) / policy.max_bytes)
                sizes[bundle] = size
                if size >= policy.max_bytes:
                    self.rotate(bundle, policy.max_files)
                    sizes[bundle] = 0
            except FileNotFoundError:
                self._ask_again(bundle)
            except OSError as error:
                self._log.warning("log.rotate", container_id=bundle.name, error=str(error))
        self._sizes = sizes
        self._asked = {bundle: since for bundle, since in self._asked.items() if bundle.exists()}
        return fastest

    def rotate(self, bundle: Path, max_files: int = MAX_FILES) -> None:
        """Make `log` the newest old file and have conmon open a new one; the oldest goes."""
        log = bundle / "log"
        for index in range(max_files - 1, 1, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{log}.{index - 1}", f"{log}.{index}")
        if max_files > 1:
            os.replace(log, f"{log}.1")
        else:
            log.unlink()
        self._asked[bundle] = self._clock.monotonic()
        _request_reopen(bundle / "ctl")

    def _ask_again(self, bundle: Path) -> None:
        """For a request that a kill lost. One that conmon has read and not yet obeyed must not be doubled."""
        now = self._clock.monotonic()
        if now - self._asked.setdefault(bundle, now) >= _REOPEN_PATIENCE_S:
            self._asked[bundle] = now
            _request_reopen(bundle / "ctl")

    def _bundles(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [entry for entry in self._directory.iterdir() if (entry / "ctl").exists()]
        return []


def _request_reopen(control: Path) -> None:
    """Ask conmon to open the log anew, unless it has been asked or is gone."""
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        waiting = int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little")
        if waiting == 0:
            os.write(descriptor, _REOPEN)
    finally:
        os.close(descriptor)
