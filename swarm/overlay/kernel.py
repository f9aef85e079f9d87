"""Namespaces, overlays, gateway and task links together: all that is made by netlink, in blocking calls.

In: desired networks, tasks. Out: the kernel changed, records of the tasks on disk.

Invariant: called from one thread only; every call may be repeated after a crash at any step.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

from swarm.base.errors import FailedPrecondition
from swarm.model.dataplane import DataPlane, TaskNetwork
from swarm.overlay.gateway import TASK_LINK, Gateway
from swarm.overlay.macvlan import Macvlans, macvlan_names
from swarm.overlay.macvlan_plan import Settings, plan_macvlans
from swarm.overlay.netlink import LINK_GROUP, Netlink
from swarm.overlay.netns import Namespaces, disable_ipv6, enable_ipv6, write_sysctl
from swarm.overlay.networks import PREFIX, Networks
from swarm.overlay.plan import CreateSandbox, Op, Underlay, plan_networks
from swarm.overlay.record_files import RecordFiles
from swarm.overlay.records import TaskRecord, plan_record
from swarm.overlay.wireguard import WireGuard

ETHERNET_MTU = 1500
LARGEST_WIRE_MTU = 9216


class Kernel:
    def __init__(self, local_address: str, run_dir: Path, gateway_subnet: str, settings: Settings) -> None:
        self._local_address = str(ipaddress.IPv4Address(local_address))
        self._configured_subnet = gateway_subnet
        self._settings = settings
        self.namespaces = Namespaces(run_dir / "netns")
        self.wireguard = WireGuard(run_dir / "wireguard", self._local_address)
        self._files = RecordFiles(run_dir / "network")
        self.records: dict[str, TaskRecord] = {}
        self._parts: tuple[Netlink, Networks, Gateway, Macvlans] | None = None

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """Of the gateway network, once started."""
        return self._gateway.subnet

    @property
    def gateway_address(self) -> str:
        return self._gateway.address

    def start(self) -> None:
        self.namespaces.prepare()
        self._files.prepare()
        self.records = self._files.load()
        for task_id in [name for name in self.records if not self.namespaces.exists(name)]:
            self.detach(task_id)  # begun or ended halfway by a former process
        if self._parts is None:
            host = Netlink()
            gateway = Gateway(self.namespaces, host, self._configured_subnet)
            networks = Networks(self.namespaces, host, self.wireguard.channel)
            self._parts = (host, networks, gateway, Macvlans(self.namespaces, host))
        self._gateway.ensure(self._underlay().mtu)
        write_sysctl("ipv4/ip_forward", "1")
        self._networks.sweep_passing()
        self._sweep()

    def close(self) -> None:
        if self._parts is not None:
            host, networks, *_ = self._parts
            networks.close()
            self.wireguard.close()
            host.close()
        self._parts = None

    def apply_networks(self, desired: DataPlane) -> tuple[Op, ...]:
        """Returns the operations that were needed."""
        ops = plan_networks(desired, self._networks.observe(), self._underlay())
        for op in ops:
            self._networks.apply(op)
        return ops

    def attach(self, task: TaskNetwork) -> TaskRecord:
        task, macvlans = plan_macvlans(task, self.records, self._settings)
        record = replace(plan_record(task, self.records, self.subnet), macvlans=macvlans)
        if self.records.get(task.task_id) != record:
            self._files.save(record)
            self.records[task.task_id] = record
        self.namespaces.ensure(task.task_id)
        self._connect(record)
        return record

    def detach(self, task_id: str) -> TaskRecord | None:
        """The kernel takes the links away with the namespace, in its own time and many at once."""
        record = self.records.get(task_id)
        if record and self._parts is not None:
            self._macvlans.disconnect(record)
        self.namespaces.delete(task_id)
        self._files.delete(task_id)
        return self.records.pop(task_id, None)

    def mend(self, desired: DataPlane) -> int:
        """Repair networks, gateway and task links; remove what belongs to nobody. Returns how much it was."""
        has_new_bridge = self._gateway.ensure(self._underlay().mtu)
        write_sysctl("ipv4/ip_forward", "1")
        self._sweep()
        ops = self.apply_networks(desired)
        has_new_bridge |= any(isinstance(op, CreateSandbox) for op in ops)
        mended = len(ops) + has_new_bridge
        for record in self.records.values():
            if not self.namespaces.exists(record.task_id):
                continue
            if has_new_bridge or not self._has_ports(record) or self._macvlans.is_cut(record):
                self._connect(record, is_mending=True)
                mended += 1
        return mended

    def remove(self) -> None:
        """Everything goes: tasks' namespaces, overlays, the gateway."""
        self._host.delete_group(LINK_GROUP)
        for name in self.namespaces.list_names():
            if name.startswith(PREFIX):
                self._networks.remove(name.removeprefix(PREFIX))
            else:
                self.namespaces.delete(name)
        self.wireguard.remove()
        for task_id in self._files.load():
            self._files.delete(task_id)
        self.records.clear()

    def _has_ports(self, record: TaskRecord) -> bool:
        own = {link.network_id for link in record.macvlans}
        return (record.is_internal or self._gateway.has_port(record)) and all(
            self._networks.has_port(attachment.network_id, attachment.addresses[0])
            for attachment in record.attachments
            if attachment.network_id not in own
        )

    def _connect(self, record: TaskRecord, *, is_mending: bool = False) -> None:
        """Links, addresses and routes of the task: makes what is missing, sets the rest again.

        When mending, a macvlan link whose parent is gone is left for when that is back.
        """
        channel = self.namespaces.run(record.task_id, _prepare_task_namespace)
        try:
            existing = channel.list_links()
            macvlans = macvlan_names(record)
            for number, attachment in enumerate(record.attachments):
                link = f"eth{number}"
                if link in macvlans:
                    continue
                self._networks.connect(
                    attachment.network_id,
                    attachment.addresses,
                    task=record.task_id,
                    link=link,
                    is_new=link not in existing,
                )
            if not record.is_internal:
                self._gateway.connect(record, is_new=TASK_LINK not in existing)
            for link, wanted in macvlans.items():
                if is_mending and not self._macvlans.has_parent(wanted):
                    continue
                self._macvlans.connect(wanted, channel, task=record.task_id, name=link)
            if links := _links_with_ipv6(record):
                self.namespaces.run(record.task_id, lambda: _enable_ipv6(links))
            _configure_task(channel, record, self._gateway)
        finally:
            channel.close()

    def _sweep(self) -> None:
        """Ports whose task is gone: the kernel is late with them, or a process lingers in the namespace."""
        for name in self.namespaces.list_names():
            if not name.startswith(PREFIX) and name not in self.records:
                self.namespaces.delete(name)
            elif name.startswith(PREFIX) and self.namespaces.exists(name):
                network_id = name.removeprefix(PREFIX)
                self._networks.sweep(network_id, keep=self._addresses_on(network_id))
        self._gateway.sweep(keep=self.records.values())

    def _addresses_on(self, network_id: str) -> frozenset[str]:
        return frozenset(
            address
            for record in self.records.values()
            for attachment in record.attachments
            for address in attachment.addresses
            if attachment.network_id == network_id
        )

    @property
    def wire_mtu(self) -> int:
        """Of the link that this host's tunnels leave by."""
        return self._underlay().mtu

    def _underlay(self) -> Underlay:
        wanted = ipaddress.IPv4Address(self._local_address)
        indexes = {index for index, address in self._host.list_addresses() if address.ip == wanted}
        for link in self._host.list_links().values():
            if link.index in indexes:
                mtu = link.mtu if link.mtu <= LARGEST_WIRE_MTU else ETHERNET_MTU  # it is the loopback
                return Underlay(address=self._local_address, mtu=mtu)
        raise FailedPrecondition(
            f"no network interface of this host has the data path address {wanted}: give one that has"
        )

    @property
    def _host(self) -> Netlink:
        return self._started[0]

    @property
    def _networks(self) -> Networks:
        return self._started[1]

    @property
    def _gateway(self) -> Gateway:
        return self._started[2]

    @property
    def _macvlans(self) -> Macvlans:
        return self._started[3]

    @property
    def _started(self) -> tuple[Netlink, Networks, Gateway, Macvlans]:
        if self._parts is None:
            raise FailedPrecondition("the data path is not started")
        return self._parts


def _prepare_task_namespace() -> Netlink:
    """What a container expects: no IPv6 unasked for, ports below 1024 and ping for any user of it."""
    for link in ("all", "default"):
        disable_ipv6(link)
    write_sysctl("ipv4/ip_forward", "1")  # as with Docker; else it would be what the host's happens to be now
    write_sysctl("ipv4/ip_unprivileged_port_start", "0")
    write_sysctl("ipv4/ping_group_range", "0 2147483647")
    return Netlink()


def _links_with_ipv6(record: TaskRecord) -> list[str]:
    return [
        f"eth{number}"
        for number, attachment in enumerate(record.attachments)
        if any(":" in address for address in attachment.addresses)
    ]


def _enable_ipv6(links: list[str]) -> None:
    for link in ("lo", *links):
        enable_ipv6(link)


def _configure_task(channel: Netlink, record: TaskRecord, gateway: Gateway) -> None:
    """Addresses and routes, through a socket inside the task's namespace."""
    links = channel.list_links()
    channel.set_up(links["lo"].index)
    for number, attachment in enumerate(record.attachments):
        if f"eth{number}" not in links:
            continue  # its parent is gone
        index = links[f"eth{number}"].index
        own = [ipaddress.ip_interface(address) for address in attachment.addresses]
        for address in own:
            channel.add_address(index, address)
        channel.set_up(index)
        for subnet in map(ipaddress.IPv4Network, attachment.subnets):
            if not any(address.network == subnet for address in own):
                channel.add_route(index, subnet)
    if record.is_internal:
        for name, link in macvlan_names(record).items():
            if link.gateway and name in links:
                channel.set_default_route(links[name].index, link.gateway)
                return
        return
    index = links[TASK_LINK].index
    channel.add_address(index, ipaddress.IPv4Interface((record.gateway_address, gateway.subnet.prefixlen)))
    channel.set_up(index)
    channel.set_default_route(index, gateway.address)
