"""What each attached task is given on this host: an address on the gateway network and its host ports.

In: `TaskNetwork`s, the records there are. Out: a `TaskRecord`.

Invariant: no two records hold the same gateway address; nor the same host port, but for tasks of one slot, of
which the newer waits for the older to go. A task that has a record keeps what it has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from swarm.base.errors import Temporary
from swarm.model.dataplane import TaskNetwork
from swarm.model.types import NetworkAttachment, PortConfig, Protocol

FIRST_EPHEMERAL, LAST_EPHEMERAL = 49153, 65535
"""Host ports given to tasks that ask for any: the upper end, as Docker does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanLink:
    """What a task was given on a macvlan network; later changes of the settings do not concern it."""

    network_id: str
    config: str
    """The name of this node's settings."""
    parent: str
    mode: str
    address: str
    """CIDR."""
    gateway: str = ""
    """Where the task's way out is; empty on an internal network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    task_id: str
    gateway_address: str
    """The task's own address on the gateway network."""
    attachments: tuple[NetworkAttachment, ...] = ()
    host_ports: tuple[PortConfig, ...] = ()
    slot: str = ""
    is_internal: bool = False
    """It has no link to the gateway network."""
    names_on: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    macvlans: tuple[MacvlanLink, ...] = ()
    """Those of its attachments that are links of its own on a link of this host."""


def plan_record(
    task: TaskNetwork, records: Mapping[str, TaskRecord], subnet: ipaddress.IPv4Network
) -> TaskRecord:
    """The record of `task`: the one it has, with what the task wants now, or a new one.

    Raises: Temporary when the gateway network is full or a host port belongs to another task.
    """
    others = [record for record in records.values() if record.task_id != task.task_id]
    own = records.get(task.task_id)
    if own and ipaddress.IPv4Address(own.gateway_address) in subnet:
        address = own.gateway_address
    else:
        address = _free_address((record.gateway_address for record in others), subnet)
    former = own.host_ports if own else ()
    return TaskRecord(
        task_id=task.task_id,
        gateway_address=address,
        attachments=task.attachments,
        host_ports=_choose_ports(task, others, former),
        slot=task.slot,
        is_internal=task.is_internal,
        names_on=task.names_on,
        nameservers=task.nameservers,
    )


def _free_address(taken: Iterable[str], subnet: ipaddress.IPv4Network) -> str:
    used = {int(ipaddress.IPv4Address(address)) for address in taken}
    first = int(subnet.network_address) + 2  # the first address is the bridge's
    for number in range(first, int(subnet.broadcast_address)):
        if number not in used:
            return str(ipaddress.IPv4Address(number))
    raise Temporary(
        f"no address is free on this host's gateway network {subnet}: stop tasks or give a larger one"
    )


def _choose_ports(
    task: TaskNetwork, others: Iterable[TaskRecord], former: tuple[PortConfig, ...]
) -> tuple[PortConfig, ...]:
    taken: set[tuple[Protocol, int]] = set()
    awaited: set[tuple[Protocol, int]] = set()
    for record in others:
        is_predecessor = task.slot and record.slot == task.slot
        held = ((port.protocol, port.published_port) for port in record.host_ports)
        (awaited if is_predecessor else taken).update(held)
    given = {(port.protocol, port.target_port): port.published_port for port in former}
    chosen: list[PortConfig] = []
    for port in sorted(task.host_ports, key=lambda p: p.published_port == 0):  # the named ones first
        number = port.published_port or given.get((port.protocol, port.target_port), 0)
        if not port.published_port and (number == 0 or (port.protocol, number) in taken):
            number = _free_port(port.protocol, taken | awaited)
        if (port.protocol, number) in taken:
            raise Temporary(f"Bind for 0.0.0.0:{number} failed: port is already allocated")
        taken.add((port.protocol, number))
        chosen.append(replace(port, published_port=number))
    return tuple(chosen)


def _free_port(protocol: Protocol, taken: set[tuple[Protocol, int]]) -> int:
    for number in range(FIRST_EPHEMERAL, LAST_EPHEMERAL + 1):
        if (protocol, number) not in taken:
            return number
    raise Temporary(f"all {protocol} host ports from {FIRST_EPHEMERAL} to {LAST_EPHEMERAL} are in use")
