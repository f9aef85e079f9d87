"""Options of one published port, which Docker's `PortConfig` has no place for: labels `swarm.port.…`. Pure.

In: a label's name and value. Out: the port and what is asked for it.

    swarm.port.8080.source=preserve         TCP port 8080 of the hosts
    swarm.port.53/udp.source=masquerade     the default, said aloud
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.base.errors import InvalidArgument
from swarm.model.types import EndpointSpec, Protocol, PublishMode

SOURCES = ("preserve", "masquerade")
_NAME = re.compile(r"port\.(\d{1,5})(?:/(tcp|udp|sctp))?\.source")


@dataclass(frozen=True, slots=True, order=True)
class PortName:
    """A port as the world sees it."""

    protocol: Protocol
    published: int

    def __str__(self) -> str:
        return f"{self.published}/{self.protocol}"


def parse_port_source(label: str, value: str) -> tuple[PortName, bool]:
    """The port that `label` (without our prefix) names, and whether clients' addresses are kept.

    Raises: InvalidArgument.
    """
    found = _NAME.fullmatch(label)
    if not found:
        raise InvalidArgument(
            f"unknown option label swarm.{label}: expected swarm.port.PORT[/PROTOCOL].source"
        )
    if value not in SOURCES:
        raise InvalidArgument(f"invalid swarm.{label} {value!r}: expected {' or '.join(SOURCES)}")
    return PortName(Protocol(found[2] or "tcp"), int(found[1])), value == "preserve"


def check_port_sources(sources: Mapping[PortName, bool], endpoint: EndpointSpec | None) -> None:
    """Raises InvalidArgument for an option of a port that every host does not answer on."""
    published = {
        PortName(port.protocol, port.published_port)
        for port in (endpoint.ports if endpoint else ())
        if port.publish_mode is PublishMode.INGRESS
    }
    for port in sorted(sources):
        if port not in published:
            raise InvalidArgument(
                f"source of port {port}: the service does not publish that number in ingress mode "
                "(in host mode, clients' addresses are always kept)"
            )
