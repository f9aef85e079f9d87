"""The network of a lab: a switch, a cable to each host, one to the machine, and the partitions between hosts.

In: a lab's name, its subnet, pids that hold network namespaces. Out: links and rules, made by `ip` and
`nft`.

The switch is a bridge in a network namespace of its own, held by one sleeping process in the lab's
cgroups. So the machine's firewall never meets the traffic between hosts (a Docker engine on the machine
would drop it), and ending that process removes the bridge and every cable. What is left in the machine's
own namespace is one link and one nft table. Invariant: `remove` needs the lab's name only, and succeeds
when there is nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from swarm.base.errors import SwarmError
from swarm.lab import cgroups, names, programs

_ENTER = Path(__file__).with_name("enter.py")


def taken_networks() -> tuple[IPv4Network, ...]:
    """What this machine routes anywhere, its own addresses included, but not the default route."""
    routes = json.loads(programs.run(["ip", "-j", "-4", "route", "show", "table", "all"]))
    return tuple(IPv4Network(route["dst"]) for route in routes if route["dst"] != "default")


def make_switch(lab: str, subnet: IPv4Network) -> None:
    """Make the bridge, the machine's port with its address, and the way out for the hosts' traffic."""
    cgroups.make(lab, names.SWITCH)
    groups = cgroups.entry_groups(lab, names.SWITCH)
    holder = ["unshare", "--net", "setsid", "--fork", "sleep", "infinity"]
    programs.leave_running([sys.executable, "-I", "-S", str(_ENTER), *groups, "--", *holder])
    pid = _switch_pid(lab)
    uplink = names.uplink_name(lab)
    _ip(
        f"link add {uplink} type veth peer name uplink netns {pid}",
        f"address add {names.gateway(subnet)}/{subnet.prefixlen} dev {uplink}",
        f"link set {uplink} up",
    )
    _add_ipv6(names.gateway(subnet), subnet, uplink)
    _ip(
        f"link add bridge address {names.bridge_mac(lab)} type bridge",
        "link set bridge up",
        "link set uplink master bridge up",
        pid=pid,
    )
    _nft(
        f"table ip {names.nat_table(lab)} {{\n"
        f"chain postrouting {{ type nat hook postrouting priority srcnat;"
        f" ip saddr {subnet} ip daddr != {subnet} masquerade; }}\n}}\n"
    )


def wire(lab: str, host: str, pid: int, subnet: IPv4Network) -> None:
    """Plug the host whose network namespace `pid` holds into the switch and give it its address."""
    address = names.host_address(subnet, host)
    _ip(
        f"link add {host} type veth peer name eth0 address {names.host_mac(address)} netns {pid}",
        f"link set {host} master bridge up",
        pid=_switch_pid(lab),
    )
    _ip(
        "link set lo up",
        f"address add {address}/{subnet.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {names.gateway(subnet)}",
        pid=pid,
    )
    _add_ipv6(address, subnet, "eth0", pid=pid)


def unplug(lab: str, host: str) -> None:
    """Remove the cable of a host that is off. The kernel does so too, but some time after the host's end."""
    with suppress(SwarmError):  # it is gone already; any other trouble shows when the next one is plugged in
        _ip(f"link delete {host}", pid=_switch_pid(lab))


def set_cuts(pid: int, peers: Sequence[IPv4Address]) -> None:
    """Make the host that `pid` belongs to deaf and mute towards exactly `peers`."""
    table = f"table inet {names.CUT_TABLE}"
    rules = f"add {table}\ndelete {table}\n"
    if peers:
        them = "{ " + ", ".join(str(peer) for peer in peers) + " }"
        macs = "{ " + ", ".join(names.host_mac(peer) for peer in peers) + " }"
        rules += (
            f"{table} {{\n"
            f"chain incoming {{ type filter hook prerouting priority raw; ip saddr {them} drop;"
            f" ether saddr {macs} drop; }}\n"
            f"chain outgoing {{ type filter hook postrouting priority raw; ip daddr {them} drop; }}\n}}\n"
        )
    _nft(rules, pid=pid)


def remove(lab: str) -> None:
    """Remove what is in the machine's own namespace. The rest ends with the processes of the lab."""
    uplink = names.uplink_name(lab)
    if Path("/sys/class/net", uplink).exists():
        try:
            programs.run(["ip", "link", "delete", uplink])
        except SwarmError:
            # The kernel removes it too, once the switch's namespace has ended.
            if Path("/sys/class/net", uplink).exists():
                raise
    table = f"table ip {names.nat_table(lab)}"
    _nft(f"add {table}\ndelete {table}\n")


def switch_entry(lab: str) -> list[str]:
    """What goes before a command that is to run in the switch's network namespace."""
    return _inside(_switch_pid(lab))


def _switch_pid(lab: str) -> int:
    pids = cgroups.processes(lab, names.SWITCH)
    if not pids:
        raise SwarmError(
            f"the switch of lab {lab} has ended: run `swarm lab down --name {lab}`, then up again"
        )
    return pids[0]


def _add_ipv6(address: IPv4Address, subnet: IPv4Network, link: str, pid: int | None = None) -> None:
    with suppress(SwarmError):  # a machine without IPv6 has labs without it
        _ip(f"address add {names.ipv6_interface(address, subnet)} dev {link} nodad", pid=pid)


def _ip(*commands: str, pid: int | None = None) -> None:
    programs.run([*_inside(pid), "ip", "-batch", "-"], feed="\n".join(commands) + "\n")


def _nft(rules: str, pid: int | None = None) -> None:
    programs.run([*_inside(pid), "nft", "-f", "-"], feed=rules)


def _inside(pid: int | None) -> list[str]:
    return [] if pid is None else ["nsenter", f"--target={pid}", "--net", "--"]
