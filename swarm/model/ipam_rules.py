"""What the subnets that a user gives a network must fulfil. Pure.

In: IPAM configurations as posted. Out: nothing, or `InvalidArgument` with the words that Docker prints where
it has some. Source: SwarmKit controlapi/network.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from swarm.base.errors import InvalidArgument
from swarm.model.embedded import LONGEST_PREFIX, SHORTEST_PREFIX
from swarm.model.types import IPAMConfig

SMALLEST_PREFIX = 29
"""A /29 has six addresses; a network below it could hold next to nothing."""
LARGEST_PREFIX = 8


def check_ipam(configs: Collection[IPAMConfig], *, with_ipv6: bool) -> None:
    """Raises InvalidArgument for the first rule that is broken."""
    found: list[IPv4Network | IPv6Network] = []
    for config in configs:
        if not config.subnet:
            if config != IPAMConfig() or len(configs) > 1:
                raise InvalidArgument("ipam configuration: a gateway, range or aux address needs its subnet")
            continue
        subnet = _ipv6_subnet(config) if config.is_ipv6 else _ipv4_subnet(config)
        if any(subnet.overlaps(other) for other in found):
            raise InvalidArgument(f"ipam configuration: subnet {subnet} overlaps another one of the network")
        found.append(subnet)
    ipv6 = [str(subnet) for subnet in found if subnet.version == 6]
    if ipv6 and not with_ipv6:
        raise InvalidArgument(f"ipam configuration: subnet {ipv6[0]} is of IPv6: give --ipv6 too")
    if len(ipv6) > 1:
        raise InvalidArgument(
            f"ipam configuration: one IPv6 subnet is enough for any number of IPv4 ones: leave out {ipv6[1]}"
        )


def _ipv4_subnet(config: IPAMConfig) -> IPv4Network:
    try:
        subnet = IPv4Network(config.subnet)
    except ValueError:
        raise InvalidArgument(f"ipam configuration: invalid subnet {config.subnet}") from None
    if not LARGEST_PREFIX <= subnet.prefixlen <= SMALLEST_PREFIX:
        raise InvalidArgument(
            f"ipam configuration: invalid subnet {config.subnet}: its mask must be from /{LARGEST_PREFIX} to "
            f"/{SMALLEST_PREFIX}"
        )
    _check_kind(subnet)
    if config.ip_range:
        try:
            part = IPv4Network(config.ip_range)
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid range {config.ip_range}") from None
        if not part.subnet_of(subnet):
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} does not contain range {config.ip_range}"
            )
    for what, text in _addresses(config):
        try:
            address = IPv4Address(text)
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid {what} {text}") from None
        if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
            raise InvalidArgument(f"ipam configuration: subnet {subnet} does not contain {what} {text}")
    return subnet


def _ipv6_subnet(config: IPAMConfig) -> IPv6Network:
    try:
        subnet = IPv6Network(config.subnet)
    except ValueError:
        raise InvalidArgument(f"ipam configuration: invalid subnet {config.subnet}") from None
    if not SHORTEST_PREFIX <= subnet.prefixlen <= LONGEST_PREFIX:
        raise InvalidArgument(
            f"ipam configuration: invalid subnet {config.subnet}: its mask must be from "
            f"/{SHORTEST_PREFIX} to /{LONGEST_PREFIX}, since addresses end with those of IPv4"
        )
    _check_kind(subnet)
    if config.ip_range:
        raise InvalidArgument(
            f"ipam configuration: addresses of {subnet} end with those of IPv4: give a range of the IPv4 "
            f"subnet in place of {config.ip_range}"
        )
    for what, text in _addresses(config):
        try:
            address = IPv6Address(text)
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid {what} {text}") from None
        if address not in subnet or address == subnet.network_address:
            raise InvalidArgument(f"ipam configuration: subnet {subnet} does not contain {what} {text}")
    return subnet


def _check_kind(subnet: IPv4Network | IPv6Network) -> None:
    is_other = subnet.is_multicast or subnet.is_loopback or subnet.is_link_local or subnet.is_unspecified
    if is_other or (isinstance(subnet, IPv6Network) and subnet.is_reserved):
        raise InvalidArgument(f"ipam configuration: invalid subnet {subnet}: not an address range for hosts")


def _addresses(config: IPAMConfig) -> Iterator[tuple[str, str]]:
    """What is asked for beside the subnet, each with what it is."""
    if config.gateway:
        yield "gateway", config.gateway
    for name, address in config.auxiliary_addresses.items():
        yield f"auxiliary address {name}", address
