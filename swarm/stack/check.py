"""What must hold between the parts of a project before it is made into a stack. Pure.

In: the merged project and the places of its values. Out: nothing, or InvalidArgument with the place.
Invariant: after it, every network, volume, secret, config and service that is named is there, `depends_on`
has no circle, and no two services publish the same port.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.stack.project import Place
from swarm.stack.readers import Path, dotted, unknown
from swarm.stack.yaml_nodes import wrong

Json = dict[str, Any]
Places = Mapping[Path, Place]

DEFAULT_NETWORK = "default"
_SOURCES = ("file", "environment", "content", "driver")


def refuse(places: Places, path: Path, text: str) -> InvalidArgument:
    """The error at the nearest place that is known."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return wrong(places[path[:length]], f"{dotted(path)}: {text}")
    return InvalidArgument(f"{dotted(path)}: {text}")


def check_project(project: Json, places: Places) -> None:
    """Raises: InvalidArgument."""
    services: Json = project.get("services", {})
    if not services:
        raise InvalidArgument("no service is defined: a compose file has them below 'services:'")
    for section in ("networks", "volumes", "secrets", "configs"):
        for name, body in project.get(section, {}).items():
            _check_external(section, name, body, places)
    for section in ("secrets", "configs"):
        for name, body in project.get(section, {}).items():
            _check_source(section, name, body, places)
    for name, service in services.items():
        _check_service(name, service, project, places)
    start_order(services, places)
    _check_ports(services, places)


def _check_external(section: str, name: str, body: Json, places: Places) -> None:
    if not body.get("external"):
        return
    others = sorted(body.keys() - {"external", "name"})
    if others:
        kind = section.removesuffix("s")
        text = f'conflicting parameters "external" and "{others[0]}" specified for {kind} "{name}"'
        raise refuse(places, (section, name, others[0]), text)


def _check_source(section: str, name: str, body: Json, places: Places) -> None:
    if body.get("external"):
        return
    found = [key for key in _SOURCES if key in body]
    if len(found) != 1:
        got = "both " + " and ".join(found) if found else "none of them"
        allowed = ", ".join(_SOURCES[:3])
        raise refuse(places, (section, name), f"needs one of {allowed}, or external: true; got {got}")


def _check_service(name: str, service: Json, project: Json, places: Places) -> None:
    path: Path = ("services", name)
    if not service.get("image"):
        raise refuse(places, path, "image is missing: a swarm runs images and builds none")
    for network in service.get("networks", {}):
        if network != DEFAULT_NETWORK:
            _check_declared("networks", network, project, (*path, "networks", network), places)
    _check_volumes(service, project, path, places)
    for section in ("secrets", "configs"):
        for reference in service.get(section, ()):
            at = (*path, section, f"[{reference['source']}]")
            _check_declared(section, reference["source"], project, at, places)
    _check_mode(service, path, places)


def _check_volumes(service: Json, project: Json, path: Path, places: Places) -> None:
    targets = {tmpfs.partition(":")[0] for tmpfs in service.get("tmpfs", ())}
    for volume in service.get("volumes", ()):
        at = (*path, "volumes", f"[{volume['target']}]")
        if volume["type"] == "volume" and "source" in volume:
            _check_declared("volumes", volume["source"], project, at, places)
        if volume["target"] in targets:
            raise refuse(places, at, f"duplicate mount point: {volume['target']}")
        targets.add(volume["target"])


def _check_mode(service: Json, path: Path, places: Places) -> None:
    deploy = service.get("deploy", {})
    for key in ("update_config", "rollback_config") if deploy.get("mode", "").endswith("-job") else ():
        if key in deploy:
            raise refuse(places, (*path, "deploy", key), "jobs may not have an update config")
    if deploy.get("mode", "").startswith("global") and ("replicas" in deploy or "scale" in service):
        raise refuse(places, (*path, "deploy", "replicas"), "replicas can only be used with replicated mode")


def _check_declared(section: str, name: str, project: Json, path: Path, places: Places) -> None:
    declared: Json = project.get(section, {})
    if name in declared:
        return
    near = unknown(name, tuple(declared)).partition(": ")[2]
    hint = near or f"declare it below the top-level '{section}:'"
    raise refuse(places, path, f'undefined {section.removesuffix("s")} "{name}": {hint}')


def start_order(services: Json, places: Places) -> list[str]:
    """Names, each after those that it depends on, otherwise sorted. Raises: InvalidArgument for a circle."""
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            if other not in services:
                near = unknown(other, tuple(services)).partition(": ")[2]
                text = f'undefined service "{other}"' + (f": {near}" if near else "")
                raise refuse(places, ("services", name, "depends_on", other), text)
    sorter = TopologicalSorter(
        {name: services[name].get("depends_on", {}).keys() for name in sorted(services)}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        path = ("services", circle[0], "depends_on", circle[1])
        raise refuse(places, path, f"depends on itself: {' -> '.join(circle)}") from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def _check_ports(services: Json, places: Places) -> None:
    taken: dict[tuple[int, str], str] = {}
    for name, service in services.items():
        for port in service.get("ports", ()):
            if "published" not in port or port["mode"] == "host":
                continue
            key = (port["published"], port["protocol"])
            if key in taken:
                also = "twice" if taken[key] == name else f"by service {taken[key]} too"
                text = f"port {key[0]}/{key[1]} is published {also}"
                raise refuse(places, ("services", name, "ports"), text)
            taken[key] = name
