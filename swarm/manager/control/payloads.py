"""Changes that users make to secrets and configs: their bytes are stored as versions of their own.

In: decoded specs and references. Out: the written object, or an error that a user can read.
Invariant: a secret or config that a service names is not removed, and the bytes of a version never change.
Source: SwarmKit manager/controlapi/secret.go, config.go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from swarm.base.errors import AlreadyExists, InvalidArgument, OutOfSequence
from swarm.base.ids import ConfigID, IdSource, SecretID
from swarm.manager.control.store import Store, insist
from swarm.model.objects import Config, Payload, Secret, Service, payload_id
from swarm.model.payload_rules import check_payload_spec, kind_of, referenced, references
from swarm.model.plan import Create, Crossing, Delete, Update
from swarm.model.specs import ConfigReference, ConfigSpec, ContainerSpec, SecretReference, SecretSpec
from swarm.model.validation import validate_labels
from swarm.model.view import ClusterView, find

Kept = TypeVar("Kept", Secret, Config)
Spec = TypeVar("Spec", SecretSpec, ConfigSpec)

DELETED_AT_ONCE = 50
"""Versions: a transaction holds so many with room to spare."""


class Payloads:
    def __init__(self, store: Store, new_id: IdSource) -> None:
        self._store = store
        self._new_id = new_id

    @property
    def view(self) -> ClusterView:
        return self._store.view

    async def create_secret(self, spec: SecretSpec) -> Secret:
        """Raises: InvalidArgument, AlreadyExists."""
        self._check_new(Secret, spec)
        secret = Secret(id=SecretID(self._new_id()), spec=_without_data(spec))
        await self._store.commit([Create(object=secret), _first_version(secret.id, spec.data)])
        return secret

    async def create_config(self, spec: ConfigSpec) -> Config:
        """Raises: InvalidArgument, AlreadyExists."""
        self._check_new(Config, spec)
        config = Config(id=ConfigID(self._new_id()), spec=_without_data(spec))
        await self._store.commit([Create(object=config), _first_version(config.id, spec.data)])
        return config

    async def relabel_secret(self, reference: str, version: int, spec: SecretSpec) -> None:
        """Change the labels, and nothing else. Raises: InvalidArgument, OutOfSequence."""
        secret = self._at_version(Secret, reference, version)
        await self._relabel(secret, replace(secret, spec=self._relabelled(secret, secret.spec, spec)))

    async def relabel_config(self, reference: str, version: int, spec: ConfigSpec) -> None:
        """Change the labels, and nothing else. Raises: InvalidArgument, OutOfSequence."""
        config = self._at_version(Config, reference, version)
        await self._relabel(config, replace(config, spec=self._relabelled(config, config.spec, spec)))

    async def remove(self, kind: type[Secret | Config], reference: str) -> None:
        """Delete it with all its versions. Raises InvalidArgument while services use it."""
        while await insist(self._store, lambda: self._remove(kind, reference)):
            pass

    async def _remove(self, kind: type[Secret | Config], reference: str) -> bool:
        """As much as one transaction holds; whether anything is left."""
        ops = self._removal(find_payload(self.view, kind, reference))
        await self._store.commit(ops, crossing=Crossing.REMOVES)
        return isinstance(ops[0].object, Payload)

    def _removal(self, item: Secret | Config) -> list[Delete]:
        """The item with its versions, or as many of the old ones as go first. Raises: InvalidArgument."""
        users = [service.spec.name for service in users_of(self.view, item.id)]
        if users:
            whose = "service" if len(users) == 1 else "services"
            raise InvalidArgument(
                f"{kind_of(item.spec)} '{item.spec.name}' is in use by the following {whose}: "
                f"{', '.join(users)}"
            )
        # The last ones go with it: no version is left of what is not there, and the current one goes last.
        versions = _deletions(self.view, item)
        if len(versions) > DELETED_AT_ONCE:
            return versions[:DELETED_AT_ONCE]
        return [Delete(object=item), *versions]

    def _check_new(self, kind: type[Kept], spec: SecretSpec | ConfigSpec) -> None:
        validate_labels(spec.labels)
        check_payload_spec(spec)
        if self.view.named(kind, spec.name):
            raise AlreadyExists(f"{kind_of(spec)} {spec.name} already exists")

    async def _relabel(self, item: Kept, changed: Kept) -> None:
        if changed != item:
            await self._store.commit([Update(object=changed)])

    def _relabelled(self, item: Secret | Config, old: Spec, new: Spec) -> Spec:
        """Clients send the whole spec again, some of them with the data."""
        stored = self.view.get(Payload, payload_id(item.id, item.current))
        is_same_data = not new.data or (stored is not None and new.data == stored.data)
        if not is_same_data or replace(new, labels=old.labels, data=b"") != old:
            raise InvalidArgument("only updates to Labels are allowed")
        validate_labels(new.labels)
        return replace(old, labels=new.labels)

    def _at_version(self, kind: type[Kept], reference: str, version: int) -> Kept:
        found = find(self.view, kind, reference)
        if found.meta.version.index != version:
            raise OutOfSequence
        return found


def find_payload(view: ClusterView, kind: type[Secret | Config], reference: str) -> Secret | Config:
    return find(view, Secret, reference) if kind is Secret else find(view, Config, reference)


def users_of(view: ClusterView, object_id: str) -> tuple[Service, ...]:
    """The services that name the secret or config `object_id`."""
    return tuple(
        service
        for service in view.list(Service)
        if any(referenced(r)[0] == object_id for r in references(service.spec.task_template.container_spec))
    )


def refuse_missing(view: ClusterView, container: ContainerSpec) -> None:
    """Raises InvalidArgument for references to what does not exist."""
    secrets = [_shown(r.secret_name, r) for r in container.secrets if not _is_there(view, r)]
    configs = [_shown(r.config_name, r) for r in container.configs if not _is_there(view, r)]
    for noun, missing in (("secret", secrets), ("config", configs)):
        if missing:
            raise InvalidArgument(f"{noun}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")


def _shown(name: str, reference: SecretReference | ConfigReference) -> str:
    return f"{name} (version {reference.version})" if reference.version else name


def _is_there(view: ClusterView, reference: SecretReference | ConfigReference) -> bool:
    """It is, under this name, and so is the version that is asked for."""
    found: Secret | Config | None
    if isinstance(reference, SecretReference):
        found = view.get(Secret, reference.secret_id)
    else:
        found = view.get(Config, reference.config_id)
    if found is None or found.spec.name != referenced(reference)[1]:
        return False
    return view.get(Payload, payload_id(found.id, reference.version or found.current)) is not None


def _without_data(spec: Spec) -> Spec:
    return replace(spec, data=b"")


def _first_version(owner_id: str, data: bytes) -> Create:
    return Create(object=Payload(id=payload_id(owner_id, 1), data=data))


def _deletions(view: ClusterView, item: Secret | Config) -> list[Delete]:
    """Of all its versions, the current one last."""
    numbers = sorted(range(1, item.last + 1), key=lambda number: number == item.current)
    found = (view.get(Payload, payload_id(item.id, number)) for number in numbers)
    return [Delete(object=payload) for payload in found if payload is not None]
