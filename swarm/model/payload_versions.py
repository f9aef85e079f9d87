"""Which versions of secrets and configs a template means just now. Pure.

In: a template and the view. Out: the template with each reference's version set, as tasks have it.
Invariant: a task's references name versions from its creation on, so what it was given never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from swarm.model.objects import Config, Secret, Service
from swarm.model.payload_rules import references
from swarm.model.specs import ConfigReference, ContainerSpec, SecretReference, ServiceSpec, TaskSpec
from swarm.model.view import ClusterView

Reference = TypeVar("Reference", SecretReference, ConfigReference)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """One stored version, without its data."""

    number: int
    created_at: datetime | None
    is_current: bool
    size_bytes: int
    tasks: tuple[str, ...]
    """Names of the live tasks that have it."""


def with_versions(view: ClusterView, template: TaskSpec) -> TaskSpec:
    """The template as a task made now has it; the same object when it names no secret and no config."""
    container = template.container_spec
    if not references(container):
        return template
    versions: dict[str, int] = {}
    for secret in container.secrets:
        found = view.get(Secret, secret.secret_id)
        versions[secret.secret_id] = found.current if found else 0
    for config in container.configs:
        kept = view.get(Config, config.config_id)
        versions[config.config_id] = kept.current if kept else 0
    return replace(template, container_spec=_set(container, versions))


def held_at(spec: ServiceSpec, object_id: str, version: int) -> ServiceSpec:
    """The spec as it is, but with the secret or config held at a version instead of following it."""
    template = spec.task_template
    container = _set(template.container_spec, {object_id: version})
    return replace(spec, task_template=replace(template, container_spec=container))


def versions_of(template: TaskSpec) -> tuple[tuple[str, int], ...]:
    """(id, version) of every reference."""
    return tuple((_id(r), r.version) for r in references(template.container_spec))


def is_following(service: Service, object_id: str) -> bool:
    """Whether a new version of the secret or config is one for the service, too."""
    return (object_id, 0) in versions_of(service.spec.task_template)


def _set(container: ContainerSpec, versions: dict[str, int]) -> ContainerSpec:
    return replace(
        container,
        secrets=tuple(_at(r, versions) for r in container.secrets),
        configs=tuple(_at(r, versions) for r in container.configs),
    )


def _at(reference: Reference, versions: dict[str, int]) -> Reference:
    return reference if reference.version else replace(reference, version=versions.get(_id(reference), 0))


def _id(reference: SecretReference | ConfigReference) -> str:
    return reference.secret_id if isinstance(reference, SecretReference) else reference.config_id
