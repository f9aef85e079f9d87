"""The secrets and configs of this node's tasks: in memory only, and as files for a container.

In: what the manager has told, and a task. Out: the files that its container gets. Invariant: they are written
nowhere but by the runtime, to a file system in memory; a swarmd that was restarted is told them again.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.base.errors import Fatal, Temporary
from swarm.model.objects import Task, payload_id
from swarm.model.payload_rules import Reference, kind_of, referenced, references, target_path
from swarm.model.specs import FileTarget
from swarm.worker.runtime.config import DeliveredFile


class Payloads:
    def __init__(self) -> None:
        self._known: Mapping[str, bytes] = {}
        self._is_told = False

    def hold(self, known: Mapping[str, bytes]) -> None:
        """All that the manager has told, by `payload_id`."""
        self._known = known
        self._is_told = True

    def files_of(self, task: Task) -> tuple[DeliveredFile, ...]:
        """Raises: Temporary before a manager has told anything, Fatal for what does not exist."""
        return tuple(self._file(reference) for reference in references(task.spec.container_spec))

    def _file(self, reference: Reference) -> DeliveredFile:
        object_id, name = referenced(reference)
        data = self._known.get(payload_id(object_id, reference.version))
        if data is None and not self._is_told:
            raise Temporary(f"waiting for a manager to send {kind_of(reference)} {name}")
        if data is None:
            raise Fatal(f"{kind_of(reference)} not found: {name}")
        file = reference.file or FileTarget(name=name)
        return DeliveredFile(
            target=target_path(reference), data=data, uid=int(file.uid), gid=int(file.gid), mode=file.mode
        )
