"""The published ports as the relay for IPv6 is to serve them. Pure.

In: the rules of the host's firewall table, so that both families lead to the same targets; the ports with
PROXY protocol, whose targets HAProxy has instead. Out: for each port its targets, and whether they are told
their clients, plain enough for JSON.

Invariant: a port without a target is not among them: the relay closes it, and it is refused. A target that
expects the header is never without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from swarm.model.dataplane import PublishedPort
from swarm.model.types import Protocol
from swarm.overlay.balance import Key, Rules, Target, choose_backends


class Served(TypedDict):
    targets: list[list[str | int]]
    header: bool
    """Each connection begins with a PROXY header that tells the client's address."""


Ports = Mapping[str, Served]

_RELAYED = (Protocol.TCP, Protocol.UDP)
"""SCTP's several addresses per connection do not pass through a socket that reads and writes."""


def plan_relayed(rules: Rules, ports: Sequence[PublishedPort]) -> Ports:
    """Where host ports and published ports overlap the former win, as in the table."""
    headed = {
        Key(protocol=port.protocol, port=port.published_port): tuple(
            Target(address=backend.address, port=port.target_port)
            for backend in choose_backends(port.backends)
        )
        for port in ports
        if port.proxy_protocol
    }
    targets: dict[Key, tuple[Target, ...]] = {**rules.published, **headed}
    targets |= {key: (target,) for key, target in rules.host_ports.items()}
    return {
        f"{key.protocol.value}/{key.port}": Served(
            targets=[[target.address, target.port] for target in given],
            header=key in headed and key not in rules.host_ports,
        )
        for key, given in targets.items()
        if given and key.protocol in _RELAYED
    }
