"""What a deployment has to do: the wanted stack and what there is in, ordered steps out. Pure.

In: a loaded stack, the cluster's networks, secrets, configs and services as the API lists them, and the
images that a registry was asked for. Out: every object of the stack as one step, those that need nothing too.

Order: services that are no longer named go first, since they may hold ports; then networks, secrets and
configs, then services, each after those that it depends on; what nobody needs any more goes last.
Invariant: an object that is not this stack's is never touched, and what can be known to fail refuses the
whole deployment before anything is sent. Source: Docker's `stack deploy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from swarm.base.errors import InvalidArgument, NotFound
from swarm.stack.compare import CONTENT, content_changes, filled_in, network_changes, service_changes
from swarm.stack.project import IMAGE_LABEL, NAMESPACE_LABEL, Stack, StackObject, StackService

Json = dict[str, Any]

AUTOSCALE_LABEL = "swarm.autoscale"
_PREDEFINED = frozenset({"host", "bridge", "none"})


class Kind(StrEnum):
    NETWORK = "network"
    SECRET = "secret"  # noqa: S105 - a kind of object, not one
    CONFIG = "config"
    SERVICE = "service"

    @property
    def many(self) -> str:
        return f"{self}s"


class Action(StrEnum):
    """As told to the user."""

    CREATE = "created"
    CHANGE = "changed"
    KEEP = "unchanged"
    REMOVE = "removed"


class Resolve(StrEnum):
    """When a registry is asked for an image's digest."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    kind: Kind
    action: Action
    name: str
    changes: tuple[str, ...] = ()
    """The fields that differ."""
    body: Json = field(default_factory=dict)
    """What is posted; a service's references are still names."""
    before: Json | None = None
    """The object as it was listed; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Everything that the cluster has, of any stack or none."""

    networks: Sequence[Json] = ()
    secrets: Sequence[Json] = ()
    configs: Sequence[Json] = ()
    services: Sequence[Json] = ()
    other_secrets: frozenset[str] = frozenset()
    """Names of the secrets whose content is not what the stack has: only their manager can tell."""

    def of(self, kind: Kind) -> dict[str, Json]:
        found: Sequence[Json] = getattr(self, kind.many)
        return {name_of(item): item for item in found}

    def ids(self) -> dict[str, dict[str, str]]:
        kinds = (Kind.NETWORK, Kind.SECRET, Kind.CONFIG)
        return {kind.many: {name: id_of(item) for name, item in self.of(kind).items()} for kind in kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a registry said: the reference with its digest, and what it runs on."""

    reference: str
    platforms: tuple[Json, ...] = ()


def plan_stack(
    stack: Stack, present: Present, images: Mapping[str, Image], *, prune: bool = False
) -> tuple[Step, ...]:
    """The steps to `stack`; `images` are by service.

    Raises:
        NotFound: something external is not there.
        InvalidArgument: a name belongs to something else, an object would have to be made anew, or the spec
            of a service is wrong.
    """
    wanted = {
        Kind.NETWORK: stack.networks,
        Kind.SECRET: stack.secrets,
        Kind.CONFIG: stack.configs,
    }
    objects = [
        _object_step(stack.name, kind, each, present)
        for kind, items in wanted.items()
        for each in items
        if _is_mine(kind, each, present)
    ]
    rolled = {(step.kind, step.name) for step in objects if CONTENT in step.changes}
    services = [
        _rolled(_service_step(stack.name, each, present, images.get(each.name)), each, rolled)
        for each in stack.services
    ]
    if not prune:
        return (*objects, *services)
    names = {step.name for step in services}
    unused = {kind: {item.name for item in items} for kind, items in wanted.items()}
    return (
        *_removals(stack.name, Kind.SERVICE, names, present),
        *objects,
        *services,
        *(step for kind in reversed(unused) for step in _removals(stack.name, kind, unused[kind], present)),
    )


def to_resolve(stack: Stack, present: Present, mode: Resolve) -> Iterator[StackService]:
    """The services whose image a registry has to be asked for."""
    services = present.of(Kind.SERVICE)
    for service in stack.services:
        if mode is Resolve.ALWAYS or (
            mode is Resolve.CHANGED and not _has_image_of(service.body, services.get(service.name))
        ):
            yield service


def undo(done: Iterable[Step]) -> tuple[Step, ...]:
    """The steps back, last one first."""
    back: list[Step] = []
    for step in done:
        if step.action is Action.CREATE:
            back.append(Step(kind=step.kind, action=Action.REMOVE, name=step.name))
        elif step.before is not None and step.action is not Action.KEEP:
            action = Action.CHANGE if step.action is Action.CHANGE else Action.CREATE
            body = step.before["Spec"]
            back.append(Step(kind=step.kind, action=action, name=step.name, body=body, before=step.before))
    return tuple(reversed(back))


def is_leftover(step: Step) -> bool:
    """Whether it removes what no service uses any more: done when the services are as wanted, and final."""
    return step.action is Action.REMOVE and step.kind is not Kind.SERVICE


def name_of(item: Json) -> str:
    """Networks have theirs at the top, everything else in its spec."""
    return str(item.get("Name") or item["Spec"]["Name"])


def id_of(item: Json) -> str:
    return str(item.get("ID") or item["Id"])


def stack_of(item: Json) -> str:
    labels: Mapping[str, str] = item.get("Labels") or (item.get("Spec") or {}).get("Labels") or {}
    return labels.get(NAMESPACE_LABEL, "")


def _is_mine(kind: Kind, each: StackObject, present: Present) -> bool:
    """Whether the stack makes it itself. Raises NotFound for something external that is not there."""
    if not each.external:
        return True
    found = present.of(kind).get(each.name)
    if found is None and not (kind is Kind.NETWORK and each.name in _PREDEFINED):
        raise NotFound(kind, f"{each.name} is declared as external: create it first")
    return False


def _object_step(stack: str, kind: Kind, each: StackObject, present: Present) -> Step:
    before = present.of(kind).get(each.name)
    if before is None:
        return Step(kind=kind, action=Action.CREATE, name=each.name, body=each.body)
    _refuse_foreign(stack, kind, each.name, before)
    if kind is Kind.NETWORK:
        changes = network_changes(each.body, before)
        if changes:
            raise InvalidArgument(
                f"network {each.name} exists with other settings ({', '.join(changes)}), and a network "
                f"cannot be changed: give it another name, or remove the stack first (swarm stack rm {stack})"
            )
    else:
        is_other = kind is Kind.SECRET and each.name in present.other_secrets
        changes = content_changes(each.body, before["Spec"], is_other=is_other)
        fixed = [change for change in changes if change in ("templating", "driver")]
        if fixed:
            raise InvalidArgument(
                f"{kind} {each.name} exists with another {fixed[0]}, which cannot be changed: give it "
                f"another name (name: {each.name}_2), or remove the stack first (swarm stack rm {stack})"
            )
    action = Action.CHANGE if changes else Action.KEEP
    return Step(kind=kind, action=action, name=each.name, changes=changes, body=each.body, before=before)


def _service_step(stack: str, each: StackService, present: Present, image: Image | None) -> Step:
    before = present.of(Kind.SERVICE).get(each.name)
    body = _with_image(each.body, image) if image is not None else each.body
    if before is None:
        service_changes(body, body)  # refuses a spec that no manager would take
        return Step(kind=Kind.SERVICE, action=Action.CREATE, name=each.name, body=body)
    _refuse_foreign(stack, Kind.SERVICE, each.name, before)
    if image is None and _has_image_of(body, before):
        body = _with_image(body, _image_of(before["Spec"]))
    body = _as_it_was(body, before["Spec"])
    changes = service_changes(filled_in(body, present.ids()), before["Spec"])
    action = Action.CHANGE if changes else Action.KEEP
    return Step(kind=Kind.SERVICE, action=action, name=each.name, changes=changes, body=body, before=before)


def _rolled(step: Step, each: StackService, rolled: Set[tuple[Kind, str]]) -> Step:
    """A service that uses a secret or config with new content is updated with it."""
    used = [(Kind.SECRET, name) for name in each.secrets] + [(Kind.CONFIG, name) for name in each.configs]
    found = tuple(f"{kind} {name}" for kind, name in used if (kind, name) in rolled)
    if step.action is Action.CREATE or not found:
        return step
    return replace(step, action=Action.CHANGE, changes=(*step.changes, *found))


def _refuse_foreign(stack: str, kind: Kind, name: str, item: Json) -> None:
    owner = stack_of(item)
    if owner != stack:
        whose = f"stack {owner}" if owner else "no stack"
        raise InvalidArgument(
            f"{kind} {name} exists already and belongs to {whose}: remove it, or give the stack another name"
        )


def _removals(stack: str, kind: Kind, kept: set[str], present: Present) -> list[Step]:
    return [
        Step(kind=kind, action=Action.REMOVE, name=name, before=item)
        for name, item in sorted(present.of(kind).items())
        if stack_of(item) == stack and name not in kept
    ]


def _has_image_of(body: Json, before: Json | None) -> bool:
    """Whether the service that runs was made from the same image reference."""
    labels = (before or {"Spec": {}})["Spec"].get("Labels") or {}
    return before is not None and labels.get(IMAGE_LABEL) == body.get("Labels", {}).get(IMAGE_LABEL)


def _image_of(spec: Json) -> Image:
    template = spec["TaskTemplate"]
    platforms = (template.get("Placement") or {}).get("Platforms") or ()
    return Image(reference=template["ContainerSpec"]["Image"], platforms=tuple(platforms))


def _with_image(body: Json, image: Image) -> Json:
    template: Json = dict(body["TaskTemplate"])
    template["ContainerSpec"] = template["ContainerSpec"] | {"Image": image.reference}
    if image.platforms:
        template["Placement"] = (template.get("Placement") or {}) | {"Platforms": list(image.platforms)}
    return body | {"TaskTemplate": template}


def _as_it_was(body: Json, spec: Json) -> Json:
    """What is not the file's to say: forced restarts, and the replicas of a service that scales by itself."""
    force = spec["TaskTemplate"].get("ForceUpdate", 0)
    body = body | {"TaskTemplate": body["TaskTemplate"] | {"ForceUpdate": force}}
    scales = all(AUTOSCALE_LABEL in (each.get("Labels") or {}) for each in (body, spec))
    if scales and "Replicated" in spec["Mode"]:
        body = body | {"Mode": spec["Mode"]}
    return body
