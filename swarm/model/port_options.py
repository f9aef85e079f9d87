"""Options of one published port, which Docker's `PortConfig` has no place for: labels `swarm.port.…`. Pure.

In: a label's name and value. Out: the port and what is asked for it.

    swarm.port.8080.source=preserve         TCP port 8080 of the hosts
    swarm.port.53/udp.source=masquerade     the default, said aloud
    swarm.port.8080.proxy-protocol=v2       TCP only; `none` is the default
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from swarm.base.errors import InvalidArgument
from swarm.model.types import EndpointSpec, Protocol, PublishMode

SOURCE, PROXY_PROTOCOL = "source", "proxy-protocol"
VALUES: Mapping[str, tuple[str, str]] = {
    SOURCE: ("preserve", "masquerade"),
    PROXY_PROTOCOL: ("v2", "none"),
}
"""What each option may be: what it does when it is on, and the default."""
_NAME = re.compile(rf"port\.(\d{{1,5}})(?:/(tcp|udp|sctp))?\.({'|'.join(VALUES)})")


@dataclass(frozen=True, slots=True, order=True)
class PortName:
    """A port as the world sees it."""

    protocol: Protocol
    published: int

    def __str__(self) -> str:
        return f"{self.published}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortOptions:
    preserves_source: bool = False
    """The tasks on the host that a client came to see the client's own address."""
    proxy_protocol: bool = False
    """Tasks are told their clients' addresses by the PROXY protocol, version 2."""
    given: tuple[str, ...] = ()
    """The options that somebody set, defaults too."""


def with_port_option(
    options: Mapping[PortName, PortOptions], label: str, value: str
) -> dict[PortName, PortOptions]:
    """`options` and what `label` (without our prefix) says. Raises: InvalidArgument."""
    found = _NAME.fullmatch(label)
    if not found:
        raise InvalidArgument(
            f"unknown option label swarm.{label}: expected swarm.port.PORT[/PROTOCOL].{{{','.join(VALUES)}}}"
        )
    name = found[3]
    if value not in VALUES[name]:
        raise InvalidArgument(f"invalid swarm.{label} {value!r}: expected {' or '.join(VALUES[name])}")
    port = PortName(Protocol(found[2] or "tcp"), int(found[1]))
    known = options.get(port, PortOptions())
    known = replace(known, given=(*known.given, name))
    is_on = value == VALUES[name][0]
    changed = (
        replace(known, preserves_source=is_on) if name == SOURCE else replace(known, proxy_protocol=is_on)
    )
    return {**options, port: changed}


def check_port_options(options: Mapping[PortName, PortOptions], endpoint: EndpointSpec | None) -> None:
    """Raises InvalidArgument for an option of a port not in ingress mode, or that does not fit."""
    published = {
        PortName(port.protocol, port.published_port)
        for port in (endpoint.ports if endpoint else ())
        if port.publish_mode is PublishMode.INGRESS
    }
    for port in sorted(options):
        asked = options[port]
        if port not in published:
            raise InvalidArgument(
                f"{asked.given[0]} of port {port}: the service does not publish that number in ingress mode "
                "(in host mode, clients' addresses are always kept)"
            )
        if asked.proxy_protocol and port.protocol is not Protocol.TCP:
            raise InvalidArgument(f"proxy-protocol of port {port}: it is for TCP only")
        if asked.proxy_protocol and asked.preserves_source:
            raise InvalidArgument(
                f"proxy-protocol of port {port}: it tells every client's address, and does not go with "
                "source=preserve"
            )
