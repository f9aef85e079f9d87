"""Go templates in a container's spec: `{{.Task.Slot}}` and its kin, in environment, hostname and mounts.

In: a spec and what it runs as. Out: the spec with every template replaced by its text. Pure.

Invariant: a template sees the names listed here and nothing else, and what fails for a task fails when the
service is created too (`check_templates` tries with a made-up task). Source: SwarmKit template/expand.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swarm.base.errors import InvalidArgument
from swarm.model.container import Driver
from swarm.model.gotemplate import Options, TemplateError, render
from swarm.model.specs import ContainerSpec
from swarm.model.types import Mount, VolumeOptions

_OPTIONS = Options(type_name="template.Context")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateContext:
    """What templates may name."""

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    node_hostname: str = ""
    node_os: str = "linux"
    node_architecture: str = ""
    task_id: str = ""
    task_name: str = ""
    task_slot: str = ""
    """The node's id for a task of a global service."""


EXAMPLE = TemplateContext(
    service_id="serviceid",
    service_name="service",
    node_id="nodeid",
    node_hostname="node",
    node_architecture="x86_64",
    task_id="taskid",
    task_name="service.1.taskid",
    task_slot="1",
)


def expand_templates(spec: ContainerSpec, context: TemplateContext) -> ContainerSpec:
    """The spec as one task runs it.

    Raises:
        InvalidArgument: a template is broken or names what is not there.
    """
    names = names_in(context)
    return replace(
        spec,
        env=tuple(_text("env", entry, names) for entry in spec.env),
        hostname=_text("hostname", spec.hostname, names),
        mounts=tuple(_mount(mount, names) for mount in spec.mounts),
    )


def check_templates(spec: ContainerSpec, service_labels: Mapping[str, str] | None = None) -> ContainerSpec:
    """The spec of an imagined task, to be validated in place of the one with templates.

    Raises:
        InvalidArgument: see `expand_templates`.
    """
    return expand_templates(spec, replace(EXAMPLE, service_labels=service_labels or {}))


def names_in(context: TemplateContext) -> dict[str, object]:
    """The data of a template."""
    platform = {"OS": context.node_os, "Architecture": context.node_architecture}
    return {
        "Service": {
            "ID": context.service_id,
            "Name": context.service_name,
            "Labels": dict(context.service_labels),
        },
        "Node": {"ID": context.node_id, "Hostname": context.node_hostname, "Platform": platform},
        "Task": {"ID": context.task_id, "Name": context.task_name, "Slot": context.task_slot},
    }


def _text(what: str, text: str, names: Mapping[str, object]) -> str:
    if "{{" not in text:
        return text
    try:
        return render(text, names, _OPTIONS)
    except TemplateError as error:
        raise InvalidArgument(f"expanding {what} {text!r} failed: {error}") from None


def _mount(mount: Mount, names: Mapping[str, object]) -> Mount:
    volume = mount.volume_options
    return replace(
        mount,
        source=_text("mount source", mount.source, names),
        target=_text("mount target", mount.target, names),
        volume_options=None if volume is None else _volume(volume, names),
    )


def _volume(volume: VolumeOptions, names: Mapping[str, object]) -> VolumeOptions:
    driver = volume.driver_config
    if driver is not None:
        driver = Driver(name=driver.name, options=_values("volume option", driver.options, names))
    labels = _values("volume label", volume.labels, names)
    return replace(volume, labels=labels, driver_config=driver)


def _values(what: str, values: Mapping[str, str], names: Mapping[str, object]) -> dict[str, str]:
    return {key: _text(what, value, names) for key, value in values.items()}
