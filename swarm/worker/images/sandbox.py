"""Starts the unpacking program (`unpack.py`) on a file of this node.

In: a tar, plain or compressed with gzip or zstd, and an empty folder. Out: the files in it and a report.

Invariant: no byte of the tar is parsed in this process.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swarm.base.errors import Temporary
from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.process import Program, run
from swarm.worker.images.zstd import decompressed

_PROGRAM = Path(__file__).with_name("unpack.py")
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """Per tar. Real layers stay well below; what is beyond would fill the node's disk or inodes."""

    max_bytes: int = 64 << 30
    max_entries: int = 1_000_000
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    diff_id: str
    bytes: int
    entries: int


async def unpack(
    source: Path, folder: Path, *, kind: Literal["layer", "archive"], limits: UnpackLimits
) -> Unpacked:
    """Unpack `source` into the existing, empty `folder`.

    Raises:
        InvalidImage: the tar is at fault; the text names the entry.
        Temporary: this node is at fault (disk full, deadline passed).
    """
    argv = [
        *(sys.executable, "-I", "-S", "-X", "utf8", str(_PROGRAM)),
        *("--kind", kind, "--folder", str(folder), "--parent", str(os.getpid())),
        *("--max-bytes", str(limits.max_bytes), "--max-entries", str(limits.max_entries)),
    ]
    async with AsyncExitStack() as stack:
        stdin = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, stdin)
        zstd = None
        if os.pread(stdin, 4, 0) == _ZSTD:
            zstd = await stack.enter_async_context(decompressed(stdin))
            stdin = zstd.output
        try:
            finished = await run(Program(argv=argv, timeout_s=limits.timeout_s, stdin=stdin))
        except TimeoutError as error:
            raise Temporary(f"unpacking took longer than {limits.timeout_s:.0f} s") from error
        if zstd is not None:
            await zstd.check()
    return _report(finished.stdout, finished.stderr)


def _report(stdout: bytes, stderr: str) -> Unpacked:
    try:
        report = json.loads(stdout)
    except ValueError as error:
        last = stderr.strip().rpartition("\n")[2]
        raise Temporary(f"the unpacking program failed: {last or 'it was killed'}") from error
    if "error" in report:
        kind = Temporary if report.get("disk_full") else InvalidImage
        raise kind(f"cannot unpack the archive: {report['error']}")
    return Unpacked(diff_id=report["diff_id"], bytes=report["bytes"], entries=report["entries"])
