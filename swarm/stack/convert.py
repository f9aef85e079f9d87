"""A checked project as a stack: the bodies that are sent, each with what it needs. Pure.

Only networks that a service uses are made, as Docker does; secrets and configs all are.
Invariant: each body passes the rules that the manager has for one object, so that a stack with a mistake is
refused before its first object is made.
Source: the requests of docker 28.2 for `stack deploy`.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.model.docker_json import decode, read_service_spec
from swarm.model.network_rules import validate_network_spec
from swarm.model.networks import OVERLAY
from swarm.model.payload_rules import check_payload_spec
from swarm.model.specs import ConfigSpec, NetworkSpec, SecretSpec
from swarm.model.validation import validate_service_spec
from swarm.stack.check import Places, refuse, start_order
from swarm.stack.convert_service import Names, said, service_body
from swarm.stack.project import Json, Notice, Stack, StackObject, StackService

Contents = Mapping[tuple[str, str], bytes]


def convert(
    name: str, project: Json, contents: Contents, notices: tuple[Notice, ...], places: Places
) -> Stack:
    """Raises: InvalidArgument with the place of a service that the manager would refuse."""
    names = Names(name, project)
    services = project["services"]
    used = sorted({key for service in services.values() for key in service.get("networks") or ("default",)})
    return Stack(
        name=name,
        networks=tuple(_network(key, names, places) for key in used),
        secrets=_file_objects("secrets", project, contents, names, places),
        configs=_file_objects("configs", project, contents, names, places),
        services=tuple(_service(key, services[key], names, places) for key in start_order(services, places)),
        notices=notices,
    )


def _network(key: str, names: Names, places: Places) -> StackObject:
    body, name = names.body("networks", key), names.of("networks", key)
    if body.get("external"):
        return StackObject(key=key, name=name, external=True)
    ipam = body.get("ipam", {})
    pools = [
        said(
            Subnet=pool.get("subnet"),
            IPRange=pool.get("ip_range"),
            Gateway=pool.get("gateway"),
            AuxiliaryAddresses=pool.get("aux_addresses"),
        )
        for pool in ipam.get("config", ())
    ]
    found = {
        "Name": name,
        "Driver": body.get("driver", OVERLAY),
        "Labels": names.labels(body.get("labels")),
        "Internal": body.get("internal", False),
        "Attachable": body.get("attachable", False),
    }
    options = said(EnableIPv6=body.get("enable_ipv6"), Options=body.get("driver_opts"))
    with _at(places, "networks", key):
        addresses = decode(NetworkSpec, {"IPAM": pools} if pools else {}).ipam
        validate_network_spec(replace(decode(NetworkSpec, found | options), ipam=addresses))
    return StackObject(
        key=key, name=name, body=found | options | said(IPAM=said(Driver=ipam.get("driver"), Config=pools))
    )


def _file_objects(
    section: str, project: Json, contents: Contents, names: Names, places: Places
) -> tuple[StackObject, ...]:
    found = []
    for key in sorted(project.get(section, {})):
        each = _file_object(section, key, contents.get((section, key)), names)
        if not each.external:
            with _at(places, section, key):
                is_secret = section == "secrets"
                check_payload_spec(
                    decode(SecretSpec, each.body) if is_secret else decode(ConfigSpec, each.body)
                )
        found.append(each)
    return tuple(found)


def _file_object(section: str, key: str, content: bytes | None, names: Names) -> StackObject:
    body, name = names.body(section, key), names.of(section, key)
    if body.get("external"):
        return StackObject(key=key, name=name, external=True)
    found: dict[str, Any] = {"Name": name, "Labels": names.labels(body.get("labels"))}
    if content is not None:
        found["Data"] = base64.b64encode(content).decode()
    driver = said(Name=body.get("driver"), Options=body.get("driver_opts"))
    template = said(Name=body.get("template_driver"))
    return StackObject(key=key, name=name, body=found | said(Driver=driver, Templating=template))


@contextmanager
def _at(places: Places, section: str, key: str) -> Iterator[None]:
    """A rule of the manager's that is broken inside is told with the place."""
    try:
        yield
    except InvalidArgument as error:
        raise refuse(places, (section, key), str(error)) from None


def _service(key: str, service: Json, names: Names, places: Places) -> StackService:
    body = service_body(key, service, names)
    with _at(places, "services", key):
        validate_service_spec(read_service_spec(_with_ids(body)))
    return StackService(
        key=key,
        name=names.scoped(key),
        body=body,
        networks=_used("networks", service.get("networks") or ("default",), names),
        secrets=_used("secrets", [each["source"] for each in service.get("secrets", ())], names),
        configs=_used("configs", [each["source"] for each in service.get("configs", ())], names),
        depends_on=tuple(sorted(names.scoped(each) for each in service.get("depends_on", {}))),
    )


def _with_ids(body: Json) -> Json:
    """As it will be sent, for the manager's rules: a reference without an id is none."""
    found = copy.deepcopy(body)
    container = found["TaskTemplate"]["ContainerSpec"]
    for word in ("Secret", "Config"):
        for reference in container.get(f"{word}s", ()):
            reference[f"{word}ID"] = "-"
    return found


def _used(section: str, keys: Iterable[str], names: Names) -> tuple[str, ...]:
    return tuple(sorted({names.of(section, key) for key in keys}))
