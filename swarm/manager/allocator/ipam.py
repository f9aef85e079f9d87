"""Addresses of one network: those in use in, the next free ones out.

Invariant: an address is given to one holder at a time. The next-fit order starts behind the one given last,
so an address just freed is the last to be given again: something on the way may be meant for its old holder.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network


def gateway_of(subnet: str) -> str:
    """The first address, as Docker has it."""
    return str(IPv4Network(subnet)[1])


def number_of(address: str) -> int:
    """Of an address with or without its prefix."""
    return int(IPv4Address(address.partition("/")[0]))


class AddressPool:
    """One network's addresses during one plan."""

    def __init__(self, subnet: str, *, used: set[int], last: int) -> None:
        """`used` is taken over and added to; `last` is the address given most recently, 0 if none was."""
        network = IPv4Network(subnet)
        self._prefix = network.prefixlen
        self._first = int(network.network_address) + 1
        self._size = max(network.num_addresses - 2, 0)
        self._used = used
        self._offset = max(last - self._first + 1, 0)
        self._is_full = False

    def take(self) -> str | None:
        """The next free address as CIDR, or None when there is none."""
        for step in range(0 if self._is_full else self._size):
            number = self._first + (self._offset + step) % self._size
            if number not in self._used:
                self._used.add(number)
                self._offset = number - self._first + 1
                return f"{IPv4Address(number)}/{self._prefix}"
        self._is_full = True
        return None
