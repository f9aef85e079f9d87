"""This host's overlay networks in the kernel: a namespace with a bridge and a VXLAN link for each.

In: operations from `swarm.overlay.plan`, tasks to connect. Out: the kernel changed, and what it holds.

    ov-<network id>   br0 ─┬─ vxlan0    made in the host's namespace, where its UDP socket stays
                           ├─ host0 ─── swl<vni> in the host: the host's own leg, with its address
                           └─ p<address> ─── ethN in a task's namespace

Invariant: every call may be repeated after a crash at any step. Blocking: called from one thread only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from swarm.base.errors import Temporary
from swarm.overlay.netlink import LINK_GROUP, Netlink, PortFlags, VethEnd
from swarm.overlay.netns import Namespaces, disable_ipv6, enable_ipv6, write_sysctl
from swarm.overlay.plan import (
    CreateSandbox,
    DeleteEndpoint,
    DeleteLeg,
    ObservedNetwork,
    Op,
    RemoveSandbox,
    SetEndpoint,
    SetLeg,
    SetTunnel,
    SetVirtual,
    Tunnel,
    address_of,
    leg_name,
    mac_of,
    port_name,
)

PREFIX = "ov-"
_BRIDGE, _VXLAN, _LEG_PORT, _TASK_PORT = "br0", "vxlan0", "host0", "p"
_BRIDGED_RULES = "bridge/bridge-nf-call-iptables"
_BRIDGED_IPV6_RULES = "bridge/bridge-nf-call-ip6tables"
_PASSING = "swx"
"""A VXLAN link's name for the moment that it spends in the host's namespace."""


class Networks:
    def __init__(self, namespaces: Namespaces, host: Netlink, encrypted: Callable[[], Netlink]) -> None:
        """`encrypted` opens the namespace in which the tunnels of encrypted networks begin."""
        self._namespaces = namespaces
        self._host = host
        self._encrypted = encrypted
        self._channels: dict[str, Netlink] = {}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def observe(self) -> dict[str, ObservedNetwork]:
        names = self._namespaces.list_names()
        ids = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
        return {network_id: self._observe(network_id) for network_id in ids}

    def apply(self, op: Op) -> None:
        match op:
            case CreateSandbox():
                self._create_sandbox(op)
            case SetTunnel():
                self._set_tunnel(op)
            case SetLeg():
                self._set_leg(op)
            case DeleteLeg():
                self._host.delete_link(op.name)
            case SetEndpoint():
                self._set_endpoint(op)
            case DeleteEndpoint():
                self._delete_endpoint(op)
            case SetVirtual():
                self._set_virtual(op)
            case RemoveSandbox():
                self.remove(op.network_id)
            case _:
                assert_never(op)

    def connect(
        self, network_id: str, addresses: Sequence[str], *, task: str, link: str, is_new: bool
    ) -> None:
        """A port for the task at `addresses` (CIDR), made with the other end `link` if `is_new`."""
        if not self._namespaces.exists(PREFIX + network_id):
            raise Temporary(f"network {network_id} is not on this host yet")
        channel = self._channel(network_id)
        own = _bare(addresses[0])
        port, mac = port_name(_TASK_PORT, own), mac_of(own)
        bridge = channel.list_links()[_BRIDGE]
        if is_new:
            with self._namespaces.open(task) as descriptor:
                ours = VethEnd(name=port, master=bridge.index)
                theirs = VethEnd(name=link, mac=mac, netns=descriptor)
                add_veth_again(channel, ours, theirs, mtu=bridge.mtu)
        index = channel.get_index(port)
        if not is_new:
            channel.set_up(index, master=bridge.index)
        channel.set_port(index, PortFlags(hairpin=True))
        channel.set_forwarding(index, mac)
        for each in addresses:
            channel.set_neighbour(bridge.index, _bare(each), mac)

    def has_port(self, network_id: str, address: str) -> bool:
        port = port_name(_TASK_PORT, _bare(address))
        return self._namespaces.exists(PREFIX + network_id) and bool(
            self._channel(network_id).get_index(port)
        )

    def sweep(self, network_id: str, *, keep: frozenset[str]) -> int:
        """Delete the ports of tasks that are no more; `keep` holds the addresses in use, in CIDR."""
        ports = {port_name(_TASK_PORT, _bare(address)) for address in keep}
        channel = self._channel(network_id)
        stray = [name for name in channel.list_links() if name.startswith(_TASK_PORT) and name not in ports]
        for name in stray:
            channel.delete_link(name)
        return len(stray)

    def sweep_passing(self) -> None:
        """Delete VXLAN links that a crash left between the namespaces."""
        for name in self._host.list_links():
            if name.startswith(_PASSING):
                self._host.delete_link(name)

    def remove(self, network_id: str) -> None:
        name = PREFIX + network_id
        if self._namespaces.exists(name):
            # Explicitly: the namespace's end is not waited for, and the VNI must be free at once.
            channel = self._channel(network_id)
            for link in (_LEG_PORT, _VXLAN):
                channel.delete_link(link)
            self._channels.pop(network_id).close()
        self._namespaces.delete(name)

    def _channel(self, network_id: str) -> Netlink:
        if network_id not in self._channels:
            self._channels[network_id] = self._namespaces.run(PREFIX + network_id, Netlink)
        return self._channels[network_id]

    def _observe(self, network_id: str) -> ObservedNetwork:
        if not self._namespaces.exists(PREFIX + network_id):
            return ObservedNetwork(network_id=network_id)
        channel = self._channel(network_id)
        links = channel.list_links()
        bridge, vxlan = links.get(_BRIDGE), links.get(_VXLAN)
        tunnel, endpoints = None, {}
        if bridge and vxlan and vxlan.master == bridge.index and vxlan.is_up:
            tunnel = vxlan.tunnel
            endpoints = _observe_endpoints(channel, vxlan.index, bridge.index)
        return ObservedNetwork(
            network_id=network_id,
            has_bridge=bridge is not None and bridge.is_up,
            tunnel=tunnel,
            leg=self._observe_leg(tunnel) if _LEG_PORT in links and tunnel else "",
            endpoints=endpoints,
            virtual=channel.addresses_on(bridge.index) if bridge else frozenset(),
            routes=channel.destinations(),
            task_ports=frozenset(name for name in links if name.startswith(_TASK_PORT)),
        )

    def _observe_leg(self, tunnel: Tunnel) -> str:
        index = self._host.get_index(leg_name(tunnel.vni))
        addresses = [address for of, address in self._host.list_addresses() if index and of == index]
        return str(addresses[0]) if addresses else ""

    def _create_sandbox(self, op: CreateSandbox) -> None:
        prepare = _prepare_ipv6 if op.with_ipv6 else _prepare_namespace
        self._namespaces.ensure(PREFIX + op.network_id, prepare)
        channel = self._channel(op.network_id)
        # Any fixed address will do; a bridge without one takes and changes it as ports come and go.
        channel.add_bridge(_BRIDGE, mac="02:42:00:00:00:01", mtu=op.mtu)
        channel.set_up(channel.get_index(_BRIDGE))

    def _set_tunnel(self, op: SetTunnel) -> None:
        channel = self._channel(op.network_id)
        channel.delete_link(_VXLAN)
        passing = f"{_PASSING}{op.tunnel.vni:06x}"
        outside = self._encrypted() if op.encrypted else self._host
        outside.delete_link(passing)
        try:
            outside.add_vxlan(passing, op.tunnel)
        except FileExistsError as error:
            raise Temporary(
                f"VXLAN network identifier {op.tunnel.vni} on port {op.tunnel.port} is in use on this host: "
                "remove the other VXLAN link or choose another data path port"
            ) from error
        with self._namespaces.open(PREFIX + op.network_id) as descriptor:
            outside.move_link(outside.get_index(passing), netns=descriptor, name=_VXLAN)
        index = channel.get_index(_VXLAN)
        channel.set_up(index, master=channel.get_index(_BRIDGE))
        channel.set_port(index, PortFlags())

    def _set_leg(self, op: SetLeg) -> None:
        channel = self._channel(op.network_id)
        interface = ipaddress.IPv4Interface(op.address)
        mac = mac_of(str(interface.ip))
        self._host.delete_link(op.name)
        with self._namespaces.open(PREFIX + op.network_id) as descriptor:
            port = VethEnd(name=_LEG_PORT, netns=descriptor)
            self._host.add_veth(VethEnd(name=op.name, mac=mac, group=LINK_GROUP), port, mtu=op.mtu)
        index = channel.get_index(_LEG_PORT)
        channel.set_up(index, master=channel.get_index(_BRIDGE))
        channel.set_port(index, PortFlags())
        channel.set_forwarding(index, mac)
        quiet_link(op.name)
        self._host.add_address(self._host.get_index(op.name), interface)

    def _set_endpoint(self, op: SetEndpoint) -> None:
        channel = self._channel(op.network_id)
        vxlan = channel.get_index(_VXLAN)
        mac = mac_of(op.address)  # one for both families
        channel.set_forwarding(vxlan, mac, op.host)
        channel.set_neighbour(vxlan, op.address, mac)
        channel.set_neighbour(channel.get_index(_BRIDGE), op.address, mac)

    def _delete_endpoint(self, op: DeleteEndpoint) -> None:
        channel = self._channel(op.network_id)
        vxlan = channel.get_index(_VXLAN)
        channel.delete_neighbour(vxlan, op.address)
        if ":" not in op.address:  # the entry of IPv4 goes, too, or is to stay
            channel.delete_forwarding(vxlan, mac_of(op.address))
        if not channel.get_index(port_name(_TASK_PORT, op.address)):
            channel.delete_neighbour(channel.get_index(_BRIDGE), op.address)

    def _set_virtual(self, op: SetVirtual) -> None:
        channel = self._channel(op.network_id)
        bridge = channel.get_index(_BRIDGE)
        for subnet in op.routes:
            channel.add_route(bridge, ipaddress.ip_network(subnet))
        for address in op.removed:
            channel.delete_address(bridge, ipaddress.ip_interface(address))
        for address in op.added:
            channel.add_address(bridge, ipaddress.ip_interface(address))


def add_veth_again(channel: Netlink, ours: VethEnd, theirs: VethEnd, *, mtu: int) -> None:
    """A pair whose outer end takes the place of one that a former task left behind."""
    try:
        channel.add_veth(ours, theirs, mtu=mtu)
    except FileExistsError:
        channel.delete_link(ours.name)
        channel.add_veth(ours, theirs, mtu=mtu)


def quiet_link(name: str) -> None:
    """A host's link into our networks: no IPv6, and answers to 127.0.0.1 may come back through it."""
    disable_ipv6(name)
    write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")


def translates_bridged() -> bool:
    """Whether the kernel lets the firewall translate bridged packets: virtual addresses need it."""
    return Path("/proc/sys/net", _BRIDGED_RULES).exists()


def _prepare_namespace() -> None:
    """No IPv6; what is bridged is translated, too, where the kernel can (br_netfilter)."""
    for link in ("all", "default"):
        disable_ipv6(link)
    write_sysctl("ipv4/ip_forward", "1")
    if translates_bridged():
        write_sysctl(_BRIDGED_RULES, "1")


def _prepare_ipv6() -> None:
    """As above, with IPv6 on all links that are yet to come."""
    _prepare_namespace()
    enable_ipv6("default")
    write_sysctl("ipv6/conf/all/forwarding", "1")
    if translates_bridged():
        write_sysctl(_BRIDGED_IPV6_RULES, "1")


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _observe_endpoints(channel: Netlink, vxlan: int, bridge: int) -> dict[str, str]:
    """Address to host; the host is empty where one of the four entries is missing or wrong."""
    listed = channel.list_neighbours()
    neighbours, near = listed.get(vxlan, {}), listed.get(bridge, {})
    forwarding = channel.list_forwarding(vxlan)
    endpoints = dict.fromkeys(map(address_of, forwarding.hosts), "")
    for address, mac in neighbours.items():
        is_whole = near.get(address) == mac == mac_of(address) and mac in forwarding.bridged
        endpoints[address] = forwarding.hosts.get(mac, "") if is_whole else ""
    return endpoints
