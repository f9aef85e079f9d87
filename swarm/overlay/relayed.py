"""The published ports as the relay for IPv6 is to serve them. Pure.

In: the rules of the host's firewall table, so that both families lead to the same targets. Out: targets by
port, plain enough for JSON.

Invariant: a port without a target is not among them: the relay closes it, and it is refused. Nor is one that
leads to HAProxy, which knows the port by the connection's original address.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.model.types import Protocol
from swarm.overlay.balance import PROXY_PORT, Key, Rules, Target, proxy_address

Ports = Mapping[str, list[list[str | int]]]

_RELAYED = (Protocol.TCP, Protocol.UDP)
"""SCTP's several addresses per connection do not pass through a socket that reads and writes."""


def plan_relayed(rules: Rules) -> Ports:
    """Where host ports and published ports overlap the former win, as in the table."""
    proxy = Target(address=proxy_address(rules.gateway_subnet), port=PROXY_PORT)
    targets: dict[Key, tuple[Target, ...]] = {
        key: given for key, given in rules.published.items() if given and proxy not in given
    }
    targets |= {key: (target,) for key, target in rules.host_ports.items()}
    return {
        f"{key.protocol.value}/{key.port}": [[target.address, target.port] for target in given]
        for key, given in targets.items()
        if key.protocol in _RELAYED
    }
