"""I7: what a watch of the store promises: ordered, unique, atomic, reliable, resumable, bookmarkable.

    python -m tests.chaos.watches FILE      (on a manager's host)

As a program it watches everything through the host's own etcd, goes on after the last revision it has when
the stream breaks, and writes each response to FILE, one JSON object a line. As a module it judges such files.
In: responses by watcher. Out: broken promises, one sentence each. Invariant: what one watcher got, every
other one got that was watching then; a watcher is judged from its first revision to its last.
Source: the names are those of etcd's own tests (tests/robustness/validate).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import grpc
import grpc.aio

from swarm.base.errors import SwarmError
from swarm.manager.ca.etcd_ca import etcd_files
from swarm.node.files import Paths
from swarm.proto.gen.etcd import rpc_pb2, rpc_pb2_grpc
from swarm.store.etcd import EtcdKV
from tests.integration.cluster import Cluster

RETRY_S = 0.2
_ALL = b"\0"


@dataclass(frozen=True, slots=True)
class Event:
    revision: int
    key: str


@dataclass(frozen=True, slots=True)
class Response:
    revision: int
    """The store's, in the header: for a response without events all before it has been delivered."""
    events: tuple[Event, ...]


# --- judging ---------------------------------------------------------------------------------------------


def load(path: Path) -> list[Response]:
    """A last line that was cut short is left out: its writer was killed."""
    found = []
    for line in path.read_text().splitlines():
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            break
        found.append(Response(said["revision"], tuple(Event(*event) for event in said["events"])))
    return found


def check_watches(by_watcher: Mapping[str, Sequence[Response]]) -> list[str]:
    broken = []
    for name, responses in sorted(by_watcher.items()):
        broken += [f"I7: the watch on {name} {what}" for what in _check_alone(responses)]
    return broken + [f"I7: {what}" for what in _check_together(by_watcher)]


def _check_alone(responses: Iterable[Response]) -> list[str]:
    broken: list[str] = []
    last, bookmark, seen = 0, 0, set[Event]()
    for response in responses:
        revisions = [event.revision for event in response.events]
        if revisions != sorted(revisions) or (revisions and revisions[0] < last):
            broken.append(f"is not ordered: {revisions} after {last}")
        if revisions and revisions[0] == last:
            broken.append(f"is not atomic: revision {last} came in pieces")
        if revisions and revisions[0] <= bookmark:
            broken.append(f"is not bookmarkable: {revisions[0]} after all up to {bookmark} had come")
        fresh = set(response.events) - seen
        if len(fresh) < len(response.events):
            broken.append(f"is not unique: an event came twice, near revision {response.revision}")
        seen |= fresh
        last = max([last, *revisions])
        if not response.events:
            bookmark = max(bookmark, response.revision)
    return broken


def _check_together(by_watcher: Mapping[str, Sequence[Response]]) -> list[str]:
    """Reliable, and resumable: nothing is missing between a watcher's first revision and its last."""
    got = {name: {e for r in responses for e in r.events} for name, responses in by_watcher.items()}
    everything = set().union(*got.values()) if got else set()
    broken = []
    for name, events in sorted(got.items()):
        if not events:
            continue
        first, last = min(e.revision for e in events), max(e.revision for e in events)
        missing = sorted(e.revision for e in everything - events if first < e.revision < last)
        if missing:
            broken.append(f"the watch on {name} is not reliable: it lacks {missing[:9]}")
    return broken


# --- recording -------------------------------------------------------------------------------------------


async def record(file: TextIO) -> None:
    """Until cancelled. Each stream begins after the last revision that the ones before have delivered."""
    after = 0
    while True:
        try:
            async with aclosing(EtcdKV(etcd_files(Paths().store_member).address())) as kv:
                async for response in _stream(kv.channel, after + 1 if after else 0):
                    if response.compact_revision:
                        return  # what is gone cannot be judged: the next recorder begins anew
                    events = [[e.kv.mod_revision, e.kv.key.decode()] for e in response.events]
                    file.write(json.dumps({"revision": response.header.revision, "events": events}) + "\n")
                    after = max([after, *(revision for revision, _ in events)])
        except (grpc.aio.AioRpcError, OSError, asyncio.InvalidStateError):
            await asyncio.sleep(RETRY_S)


async def _stream(channel: grpc.aio.Channel, start_revision: int) -> AsyncIterator[rpc_pb2.WatchResponse]:
    stream = rpc_pb2_grpc.WatchStub(channel).Watch()
    create = rpc_pb2.WatchCreateRequest(
        key=_ALL, range_end=_ALL, start_revision=start_revision, progress_notify=True
    )
    try:
        await stream.write(rpc_pb2.WatchRequest(create_request=create))
        while True:
            response = await stream.read()
            if not isinstance(response, rpc_pb2.WatchResponse) or response.canceled:
                return
            if not response.created:
                yield response
    finally:
        stream.cancel()


@contextmanager
def watched(cluster: Cluster, directory: Path) -> Iterator[None]:
    """While the block runs, a recorder on each host; one that dies with its host is followed by another."""
    ended = threading.Event()
    threads = [threading.Thread(target=_keep, args=(cluster, h, directory, ended)) for h in cluster.hosts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _keep(cluster: Cluster, host: str, directory: Path, ended: threading.Event) -> None:
    for turn in itertools.count():
        if ended.is_set():
            return
        argv = [sys.executable, "-m", __name__, str(directory / f"{host}-{turn}.watch")]
        try:
            command = cluster.lab.entry(host, argv).command()
        except SwarmError:
            ended.wait(RETRY_S)  # the host is off
            continue
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0) as recorder:
            while recorder.poll() is None and not ended.wait(RETRY_S):
                continue
            with suppress(ProcessLookupError):
                os.killpg(recorder.pid, signal.SIGKILL)


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", buffering=1) as output:
        asyncio.run(record(output))
