"""Which address and parent link a task gets on a macvlan network, by this node's own settings. Pure.

In: a `TaskNetwork` whose macvlan attachments have no address yet, the records there are, the node's settings.
Out: the `TaskNetwork` with addresses, and a `MacvlanLink` for each of them.

Invariant: no two tasks of this node hold one address on one parent link; a task that has a record keeps what
it has. Other nodes do not ask: their ranges are for the users to keep apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from swarm.base.errors import Fatal
from swarm.model.dataplane import TaskNetwork
from swarm.model.networks import DEFAULT_MACVLAN_MODE, MODE_OPTION, PARENT_OPTION
from swarm.model.specs import NetworkSpec
from swarm.model.types import IPAMConfig, NetworkAttachment
from swarm.overlay.records import MacvlanLink, TaskRecord

Settings = Callable[[str], NetworkSpec | None]
"""This node's config-only network of a name."""


def plan_macvlans(
    task: TaskNetwork, records: Mapping[str, TaskRecord], settings: Settings
) -> tuple[TaskNetwork, tuple[MacvlanLink, ...]]:
    """Raises: Fatal when this node has no such settings, or no address is free in them."""
    own = records.get(task.task_id)
    kept = {link.network_id: link for link in own.macvlans} if own else {}
    held = [link for record in records.values() for link in record.macvlans]
    links: list[MacvlanLink] = []
    attachments: list[NetworkAttachment] = []
    for attachment in task.attachments:
        if not attachment.config_from:
            attachments.append(attachment)
            continue
        link = kept.get(attachment.network_id) or _new_link(attachment, settings, [*held, *links])
        links.append(link)
        attachments.append(replace(attachment, addresses=(link.address,)))
    return replace(task, attachments=tuple(attachments)), tuple(links)


def _new_link(attachment: NetworkAttachment, settings: Settings, held: list[MacvlanLink]) -> MacvlanLink:
    name = attachment.config_from
    spec = settings(name)
    if spec is None:
        raise Fatal(f"network {name} not found on this node: make it here with network create --config-only")
    parent, ipam = spec.options[PARENT_OPTION], spec.ipam[0]
    gateway = ipam.gateway or str(IPv4Network(ipam.subnet)[1])
    taken = {link.address.partition("/")[0] for link in held if link.parent == parent}
    address = _free_address(ipam, {gateway, *ipam.auxiliary_addresses.values(), *taken})
    if not address:
        part = ipam.ip_range or ipam.subnet
        raise Fatal(f"could not find an available IP on network {name} of this node ({part})")
    return MacvlanLink(
        network_id=attachment.network_id,
        config=name,
        parent=parent,
        mode=spec.options.get(MODE_OPTION, DEFAULT_MACVLAN_MODE),
        address=address,
        gateway="" if attachment.internal else gateway,
    )


def _free_address(ipam: IPAMConfig, taken: set[str]) -> str:
    """CIDR; empty when there is none."""
    subnet, part = IPv4Network(ipam.subnet), IPv4Network(ipam.ip_range or ipam.subnet)
    first = max(int(part.network_address), int(subnet.network_address) + 1)
    last = min(int(part.broadcast_address), int(subnet.broadcast_address) - 1)
    free = (str(IPv4Address(number)) for number in range(first, last + 1))
    return next((f"{address}/{subnet.prefixlen}" for address in free if address not in taken), "")
