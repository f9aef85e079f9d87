"""IPv4 addresses of one network: those in use in, the next free ones out; and which subnets are free.

Invariant: an address is given to one holder at a time. The next-fit order starts behind the one given last,
so an address just freed is the last to be given again: something on the way may be meant for its old holder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from swarm.model.embedded import embedded
from swarm.model.types import IPAMConfig


def gateway_of(subnet: str) -> str:
    """The first address, as Docker has it."""
    return str(ip_network(subnet)[1])


def number_of(address: str) -> int:
    """Of an IPv4 address with or without its prefix."""
    return int(IPv4Address(address.partition("/")[0]))


def spell_out(config: IPAMConfig) -> IPAMConfig:
    """With its gateway, in the subnet's usual spelling."""
    return IPAMConfig(
        subnet=str(ip_network(config.subnet)),
        ip_range=str(ip_network(config.ip_range)) if config.ip_range else "",
        gateway=str(ip_address(config.gateway or gateway_of(config.subnet))),
        auxiliary_addresses=config.auxiliary_addresses,
    )


def reserved(configs: Sequence[IPAMConfig]) -> set[int]:
    """IPv4 addresses that nobody is given: those asked for, and those whose IPv6 address is asked for."""
    wanted = [(c, address) for c in configs for address in (c.gateway, *c.auxiliary_addresses.values())]
    found = {number_of(address) for config, address in wanted if not config.is_ipv6}
    subnets = [IPv4Network(config.subnet) for config in configs if not config.is_ipv6]
    for config, address in wanted:
        own = embedded(address, config.subnet) if config.is_ipv6 else ""
        if own and any(IPv4Address(own) in subnet for subnet in subnets):
            found.add(number_of(own))
    return found


def choose_subnet(pools: Iterable[IPv4Network], size: int, taken: Collection[IPv4Network]) -> str | None:
    """The first subnet of `size` in the pools that overlaps nothing taken; None when there is none."""
    for pool in pools:
        number, last = int(pool.network_address), int(pool.broadcast_address)
        step = 1 << (32 - max(size, pool.prefixlen))
        while number < last:
            candidate = IPv4Network((number, max(size, pool.prefixlen)))
            beyond = max((int(n.broadcast_address) for n in taken if n.overlaps(candidate)), default=None)
            if beyond is None:
                return str(candidate)
            number = max(beyond + 1, number + step)
            number += -number % step
    return None


class _Part:
    """The addresses of one subnet that may be given."""

    def __init__(self, config: IPAMConfig, last: int) -> None:
        subnet = IPv4Network(config.subnet)
        part = IPv4Network(config.ip_range or config.subnet)
        self.prefix = subnet.prefixlen
        self.first = max(int(part.network_address), int(subnet.network_address) + 1)
        self.size = max(
            min(int(part.broadcast_address), int(subnet.broadcast_address) - 1) - self.first + 1, 0
        )
        self.offset = last - self.first + 1 if self.first <= last < self.first + self.size else 0
        self.is_full = False


class AddressPool:
    """One network's addresses during one plan; subnets in their order, each from behind the last address."""

    def __init__(self, configs: Sequence[IPAMConfig], *, used: set[int], last: int) -> None:
        """`used` is taken over and added to; `last` is the address given most recently, 0 if none was."""
        self._parts = [_Part(config, last) for config in configs if not config.is_ipv6]
        self._used = used

    @property
    def size(self) -> int:
        """How many addresses there are to give, if none of them was reserved."""
        return sum(part.size for part in self._parts)

    def take(self) -> str | None:
        """The next free address as CIDR, or None when there is none."""
        for part in self._parts:
            for step in range(0 if part.is_full else part.size):
                number = part.first + (part.offset + step) % part.size
                if number not in self._used:
                    self._used.add(number)
                    part.offset = number - part.first + 1
                    return f"{IPv4Address(number)}/{part.prefix}"
            part.is_full = True
        return None

    def give_back(self, address: str) -> None:
        self._used.discard(number_of(address))
        for part in self._parts:
            part.is_full = False
