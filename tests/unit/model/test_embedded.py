from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.embedded import LONGEST_PREFIX, SHORTEST_PREFIX, default_ipv6_subnet, embed, embedded

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
subnets = st.builds(
    lambda number, prefix: str(IPv6Network((number, prefix), strict=False)),
    st.integers(0, 2**128 - 1),
    st.integers(SHORTEST_PREFIX, LONGEST_PREFIX),
)


def test_the_last_32_bits_are_the_ipv4_address() -> None:
    assert embed("10.0.16.3", "fd00:1:2:3::/64") == "fd00:1:2:3::a00:1003"
    assert embed("10.0.16.3", "64:ff9b::/96") == "64:ff9b::a00:1003"
    assert embed("10.0.16.3", "") == ""


@given(addresses, subnets)
def test_there_and_back(address: IPv4Address, subnet: str) -> None:
    beside = embed(str(address), subnet)
    assert IPv6Address(beside) in IPv6Network(subnet)
    assert embedded(beside, subnet) == str(address)


def test_other_addresses_of_the_subnet_are_nobodys() -> None:
    assert embedded("fd00::1:a00:1003", "fd00::/64") == ""
    assert embedded("fd01::a00:1003", "fd00::/64") == ""


@given(st.integers(1, 2**24 - 1), st.integers(1, 2**24 - 1))
def test_every_network_has_a_subnet_of_its_own(one: int, other: int) -> None:
    first, second = (IPv6Network(default_ipv6_subnet("cluster", vni)) for vni in (one, other))
    assert first.prefixlen == 64
    assert first.subnet_of(IPv6Network("fd00::/8"))
    assert first.overlaps(second) == (one == other)
    assert not first.overlaps(IPv6Network(default_ipv6_subnet("another", one)))
