"""The secrets and configs of this node's tasks: in memory only, and as a container gets them.

In: what the manager has told, and a task. Out: files and variables for its container; what is a template is
expanded here, for this task. Invariant: they are written nowhere but by the runtime, to a file system in
memory; a swarmd that was restarted is told them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarm.base.errors import Fatal, Temporary
from swarm.model.objects import Payload, Task, payload_id
from swarm.model.payload_rules import (
    Reference,
    kind_of,
    limit_of,
    referenced,
    references,
    target_path,
    variable_of,
)
from swarm.model.payload_template import Sources, expand_payload
from swarm.model.specs import ContainerSpec, FileTarget
from swarm.model.task_template import TemplateContext
from swarm.worker.runtime.config import DeliveredFile
from swarm.worker.secret_driver import SecretDrivers


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    files: tuple[DeliveredFile, ...] = ()
    env: tuple[str, ...] = field(default=(), repr=False)
    """`NAME=value`."""


class Payloads:
    def __init__(self, drivers: SecretDrivers) -> None:
        self._drivers = drivers
        self._known: Mapping[str, Payload] = {}
        self._is_told = False

    def hold(self, known: Mapping[str, Payload]) -> None:
        """All that the manager has told, by `payload_id`."""
        self._known = known
        self._is_told = True

    def check(self, task: Task) -> None:
        """Raises: Temporary before a manager has told anything, Fatal for what does not exist."""
        for reference in references(task.spec.container_spec):
            self._payload(reference)

    async def delivery(self, spec: ContainerSpec, context: TemplateContext) -> Delivery:
        """For a task with this spec, its own templates expanded. Raises: as `check`, InvalidArgument."""
        values = {r: await self._value(r, context) for r in references(spec)}
        sources = _sources(spec, values)
        files: list[DeliveredFile] = []
        env: list[str] = []
        for reference in references(spec):
            data = self._expanded(reference, values[reference], context, sources)
            if variable := variable_of(reference):
                env.append(f"{variable}={_value(variable, referenced(reference)[1], data)}")
            else:
                files.append(_file(reference, data))
        return Delivery(files=tuple(files), env=tuple(env))

    def _payload(self, reference: Reference) -> Payload:
        object_id, name = referenced(reference)
        found = self._known.get(payload_id(object_id, reference.version))
        if found is None and not self._is_told:
            raise Temporary(f"waiting for a manager to send {kind_of(reference)} {name}")
        if found is None:
            raise Fatal(f"{kind_of(reference)} not found: {name}")
        return found

    async def _value(self, reference: Reference, context: TemplateContext) -> bytes:
        payload = self._payload(reference)
        if payload.driver is None:
            return payload.data
        return await self._drivers.value(referenced(reference)[1], payload, context)

    def _expanded(
        self, reference: Reference, value: bytes, context: TemplateContext, sources: Sources
    ) -> bytes:
        if not self._payload(reference).is_template:
            return value
        kind = kind_of(reference)
        what = f"{kind} {referenced(reference)[1]}"
        return expand_payload(what, value, context, sources, limit_of(kind))


def _sources(spec: ContainerSpec, values: Mapping[Reference, bytes]) -> Sources:
    env = (entry.partition("=") for entry in spec.env)
    return Sources(
        secrets=_named(spec.secrets, values),
        configs=_named(spec.configs, values),
        env={key: value for key, equals, value in env if equals},
    )


def _named(found: Sequence[Reference], values: Mapping[Reference, bytes]) -> dict[str, bytes]:
    """By name, and before that by target, as Docker has it."""
    names = {referenced(reference)[1]: values[reference] for reference in found}
    return names | {r.file.name: values[r] for r in found if r.file is not None}


def _file(reference: Reference, data: bytes) -> DeliveredFile:
    file = reference.file or FileTarget(name=referenced(reference)[1])
    return DeliveredFile(
        target=target_path(reference), data=data, uid=int(file.uid), gid=int(file.gid), mode=file.mode
    )


def _value(variable: str, name: str, data: bytes) -> str:
    """Raises: Fatal for what no variable can hold."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Fatal(f"secret {name} is not a text: it cannot be a variable ({variable})")
    return text
