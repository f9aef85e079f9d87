"""What an agent knows of its tasks, on disk: it survives swarmd, whatever the managers do meanwhile.

One file a task, replaced atomically. Nothing is fsynced: what a power cut takes, the container has gone with,
and the managers' record tells the rest; a file that cannot be read counts as none and is removed. On a full
disk tasks go on: what could not be written is told by the managers again. The highest leader epoch seen is
kept too, so that a deposed leader's assignments stay refused after a restart. Tasks hold environments and
commands: each is sealed under its id, by the key that also seals the node's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from swarm.base.failpoint import failpoint
from swarm.base.log import get_logger
from swarm.model.container import PullOptions
from swarm.model.objects import Task
from swarm.proto import codec
from swarm.secrets.box import Unsealable

log = get_logger("journal")


class Seal(Protocol):
    def seal(self, place: str, plain: bytes) -> bytes: ...

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises: Unsealable."""
        ...


class Journal:
    def __init__(self, directory: Path, seal: Seal) -> None:
        self._seal = seal
        self._tasks = directory / "tasks"
        self._epoch = directory / "epoch"
        self._generation = directory / "generation"
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> dict[str, Task]:
        """All tasks by id, each with the status last saved."""
        tasks: dict[str, Task] = {}
        for path in self._tasks.iterdir():
            if path.name.startswith("."):
                path.unlink()
                continue
            try:
                tasks[path.name] = self._read(path)
            except (Unsealable, DecodeError, ValueError) as error:
                log.warning("journal.unreadable", task_id=path.name, reason=str(error))
                path.unlink()
        return tasks

    def save(self, task: Task) -> None:
        failpoint("journal.task.save")
        kept = codec.dumps(_without_login(task))
        _replace(self._tasks / task.id, self._seal.seal(task.id, kept))

    def forget(self, task_id: str) -> None:
        failpoint("journal.task.forget")
        (self._tasks / task_id).unlink(missing_ok=True)

    def load_epoch(self) -> int:
        return _number(self._epoch)

    def save_epoch(self, epoch: int) -> None:
        failpoint("journal.epoch.save")
        _replace(self._epoch, str(epoch).encode())

    def load_generation(self) -> int:
        """Of the cluster; epochs count anew in each."""
        return _number(self._generation)

    def save_generation(self, generation: int) -> None:
        _replace(self._generation, str(generation).encode())

    def _read(self, path: Path) -> Task:
        task = codec.loads(Task, self._seal.open(path.name, path.read_bytes()))
        if task.id != path.name:
            raise ValueError("it holds no task of this name")
        return task


def _without_login(task: Task) -> Task:
    """A registry login is a secret. That there is one stays: it is asked for again."""
    spec, container = task.spec, task.spec.container_spec
    if container.pull_options is None:
        return task
    return replace(task, spec=replace(spec, container_spec=replace(container, pull_options=PullOptions())))


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_bytes(content)
        failpoint("journal.file.written")
        temporary.replace(path)
        failpoint("journal.file.replaced")
    except OSError as error:
        log.error("journal.unwritten", path=str(path), reason=str(error))
