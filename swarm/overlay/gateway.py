"""The bridge through which this host's tasks reach the world: `swarm-gw`.

In: task records. Out: the bridge with its address, and in each task's namespace a link `gw0` to it.
Masquerade and the walls around the bridge are the firewall's part (balance.py).

Invariant: tasks cannot talk to each other here: that is the guard's part (guard.py).
Blocking: called from one thread only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from swarm.overlay.netlink import LINK_GROUP, Netlink, PortFlags, VethEnd
from swarm.overlay.netns import Namespaces, write_sysctl
from swarm.overlay.networks import add_veth_again, quiet_link
from swarm.overlay.plan import choose_subnet, mac_of, port_name
from swarm.overlay.records import TaskRecord

BRIDGE = "swarm-gw"
TASK_LINK = "gw0"
_PORT = "swg"


class Gateway:
    def __init__(self, namespaces: Namespaces, host: Netlink, configured: str = "") -> None:
        self._namespaces = namespaces
        self._host = host
        self._configured = configured
        self.subnet = ipaddress.IPv4Network(configured or "0.0.0.0/32")
        self._mtu = 1500

    @property
    def address(self) -> str:
        return str(self.subnet.network_address + 1)

    def ensure(self, mtu: int) -> bool:
        """Make the bridge as it should be. Returns whether anything was missing."""
        self._mtu = mtu
        index = self._host.get_index(BRIDGE)
        addresses = self._host.list_addresses()
        found = [address for of, address in addresses if index and of == index]
        if found:
            self.subnet = found[0].network
            self._host.set_up(index)
            return False
        if not self._configured and not self.subnet.num_addresses > 1:
            busy = [*self._host.list_routes(), *(address.network for _, address in addresses)]
            self.subnet = choose_subnet(busy)
        self._host.add_bridge(BRIDGE, mac=mac_of(self.address), mtu=mtu, group=LINK_GROUP)
        index = self._host.get_index(BRIDGE)
        self._host.set_up(index)
        quiet_link(BRIDGE)
        write_sysctl("ipv4/ip_forward", "1")
        self._host.add_address(index, ipaddress.IPv4Interface((self.address, self.subnet.prefixlen)))
        return True

    def connect(self, record: TaskRecord, *, is_new: bool) -> None:
        """A port for the task, made with the other end in its namespace if `is_new`."""
        port = port_name(_PORT, record.gateway_address)
        bridge = self._host.get_index(BRIDGE)
        mac = mac_of(record.gateway_address)
        if is_new:
            with self._namespaces.open(record.task_id) as descriptor:
                ours = VethEnd(name=port, master=bridge, group=LINK_GROUP)
                theirs = VethEnd(name=TASK_LINK, mac=mac, netns=descriptor)
                add_veth_again(self._host, ours, theirs, mtu=self._mtu)
        index = self._host.get_index(port)
        if not is_new:
            self._host.set_up(index, master=bridge)
        self._host.set_port(index, PortFlags(hairpin=True))
        self._host.set_forwarding(index, mac)

    def has_port(self, record: TaskRecord) -> bool:
        return self._host.get_index(port_name(_PORT, record.gateway_address)) != 0

    def sweep(self, *, keep: Iterable[TaskRecord]) -> int:
        """Delete the ports of tasks that are no more."""
        ports = {port_name(_PORT, record.gateway_address) for record in keep}
        stray = [name for name in self._host.list_links() if name.startswith(_PORT) and name not in ports]
        for name in stray:
            self._host.delete_link(name)
        return len(stray)
