"""Names and addresses of a lab, decided from its name alone.

In: a lab's name, its number of hosts, the networks that are taken. Out: host names, addresses, and the
names of the link, nft table and cgroups, so that `down` finds everything without having to trust a record.
Invariant: two labs of different names never share a kernel object's name (each contains the lab's name in
full), and a chosen subnet overlaps nothing that is taken.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface

from swarm.base.errors import FailedPrecondition, InvalidArgument

DEFAULT_NAME = "lab"
POOL = IPv4Network("10.213.0.0/16")
POOL_PREFIX = 24
IPV6_PREFIX = IPv6Address("fd00:213::")

CGROUP_PARENT = "swarm-lab"
CUT_TABLE = "swarm_lab_cut"
UPLINK_PREFIX = "sl-"
# The lab's switch is a namespace like a host's, under a name that no host has.
SWITCH = "switch"

_NAME = re.compile(r"[a-z0-9-]{1,12}")


def checked_name(name: str) -> str:
    """`name`, if a lab can be called so.

    Raises:
        InvalidArgument: it is not 1 to 12 characters of a-z, 0-9 and "-".
    """
    if not _NAME.fullmatch(name) or name.startswith("-"):
        raise InvalidArgument(
            f'invalid lab name "{name}": use 1 to 12 of a-z, 0-9 and "-", and a letter or digit first'
        )
    return name


def host_names(count: int) -> tuple[str, ...]:
    """h1 to h`count`."""
    if count < 1:
        raise InvalidArgument("a lab needs at least one host: --hosts 1 or more")
    return tuple(f"h{index}" for index in range(1, count + 1))


def uplink_name(lab: str) -> str:
    """The machine's port of the lab's switch: at most 15 characters, so a lab's name has at most 12."""
    return f"{UPLINK_PREFIX}{lab}"


def bridge_mac(lab: str) -> str:
    """A fixed, locally administered address: left alone, a bridge takes another with each new port."""
    digest = zlib.crc32(lab.encode()).to_bytes(4, "big")
    return "02:5a:" + ":".join(f"{byte:02x}" for byte in digest)


def host_mac(address: IPv4Address) -> str:
    """The same at every boot: the other hosts and the machine remember it."""
    return "02:5b:" + ":".join(f"{byte:02x}" for byte in address.packed)


def nat_table(lab: str) -> str:
    return f"swarm_lab_{lab.replace('-', '_')}"


def cgroup_path(lab: str, host: str | None = None) -> str:
    """The cgroup of a lab, or of one of its hosts, below the root of every hierarchy."""
    return f"{CGROUP_PARENT}/{lab}" if host is None else f"{CGROUP_PARENT}/{lab}/{host}"


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The machine's own address on the lab's bridge."""
    return subnet[1]


def host_address(subnet: IPv4Network, host: str) -> IPv4Address:
    return subnet[1 + int(host.removeprefix("h"))]


def ipv6_interface(address: IPv4Address, subnet: IPv4Network) -> IPv6Interface:
    """The IPv6 address that goes with an IPv4 one, in a network of its lab's own."""
    return IPv6Interface((int(IPV6_PREFIX) + int(address), 96 + subnet.prefixlen))


def parse_subnet(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f'invalid subnet "{text}": write an IPv4 network as 10.213.7.0/24') from error


def choose_subnet(wanted: IPv4Network | None, taken: Iterable[IPv4Network], hosts: int) -> IPv4Network:
    """`wanted`, or the first free /24 of the pool, with room for the machine and `hosts`.

    Raises:
        FailedPrecondition: it overlaps a network that is taken, or the pool is used up.
        InvalidArgument: it is too small.
    """
    used = tuple(taken)
    if wanted is None:
        wanted = next((net for net in POOL.subnets(new_prefix=POOL_PREFIX) if not _overlaps(net, used)), None)
        if wanted is None:
            raise FailedPrecondition(f"no free /{POOL_PREFIX} is left in {POOL}: choose one with --subnet")
    elif clash := _overlaps(wanted, used):
        raise FailedPrecondition(
            f"subnet {wanted} overlaps {clash}, which this machine already uses: choose another with --subnet"
        )
    room = wanted.num_addresses - 3  # the network's own address, the broadcast address, the machine's
    if hosts > room:
        raise InvalidArgument(f"subnet {wanted} has room for {max(room, 0)} hosts, not for {hosts}")
    return wanted


def _overlaps(net: IPv4Network, used: tuple[IPv4Network, ...]) -> IPv4Network | None:
    return next((other for other in used if net.overlaps(other)), None)
