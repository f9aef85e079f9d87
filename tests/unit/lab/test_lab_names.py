"""Names and addresses of a lab are decided from its name, and never collide."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.lab import names

LONGEST = "a" * 12


@pytest.mark.parametrize("name", ["lab", "a", "0-1", LONGEST])
def test_good_names_are_taken_as_they_are(name):
    assert names.checked_name(name) == name


@pytest.mark.parametrize("name", ["", "Lab", "a_b", "a b", "../x", LONGEST + "a", "-a", "lab\n"])
def test_bad_names_are_refused_with_the_rule(name):
    with pytest.raises(InvalidArgument, match="invalid lab name"):
        names.checked_name(name)


def test_links_fit_the_kernels_limit():
    assert len(names.uplink_name(LONGEST)) <= 15


def test_names_of_two_labs_differ():
    labs = ["a", "a-b", "ab", "a--b"]
    for naming in (names.uplink_name, names.nat_table, names.cgroup_path, names.bridge_mac):
        assert len({naming(lab) for lab in labs}) == len(labs)


def test_ipv6_addresses_of_two_labs_are_of_different_networks():
    one, other = IPv4Network("10.213.4.0/24"), IPv4Network("10.213.5.0/24")
    found = names.ipv6_interface(names.host_address(one, "h1"), one)
    assert str(found) == "fd00:213::ad5:402/120"
    assert names.ipv6_interface(names.gateway(one), one) in found.network
    assert names.ipv6_interface(names.gateway(other), other) not in found.network


def test_hosts_and_their_addresses():
    subnet = IPv4Network("10.213.4.0/24")
    assert names.host_names(3) == ("h1", "h2", "h3")
    assert names.gateway(subnet) == IPv4Address("10.213.4.1")
    assert [str(names.host_address(subnet, host)) for host in ("h1", "h2", "h250")] == [
        "10.213.4.2",
        "10.213.4.3",
        "10.213.4.251",
    ]


def test_a_host_keeps_its_mac():
    assert names.host_mac(IPv4Address("10.213.4.2")) == "02:5b:0a:d5:04:02"


def test_a_lab_has_at_least_one_host():
    with pytest.raises(InvalidArgument, match="--hosts"):
        names.host_names(0)


def test_the_first_free_subnet_is_chosen():
    taken = [IPv4Network("10.213.0.0/24"), IPv4Network("10.213.1.128/25"), IPv4Network("127.0.0.0/8")]
    assert names.choose_subnet(None, taken, 3) == IPv4Network("10.213.2.0/24")


def test_a_full_pool_is_said_so():
    with pytest.raises(FailedPrecondition, match="--subnet"):
        names.choose_subnet(None, [IPv4Network("10.0.0.0/8")], 3)


def test_a_wanted_subnet_that_is_free_is_taken():
    wanted = IPv4Network("172.30.0.0/28")
    assert names.choose_subnet(wanted, [IPv4Network("10.0.0.0/8")], 13) == wanted


def test_a_wanted_subnet_that_overlaps_names_the_clash():
    with pytest.raises(FailedPrecondition, match=r"10\.1\.0\.0/24 overlaps 10\.0\.0\.0/8"):
        names.choose_subnet(IPv4Network("10.1.0.0/24"), [IPv4Network("10.0.0.0/8")], 1)


def test_a_subnet_that_is_too_small_is_refused():
    with pytest.raises(InvalidArgument, match="room for 13 hosts"):
        names.choose_subnet(IPv4Network("172.30.0.0/28"), [], 14)
    with pytest.raises(InvalidArgument, match="room for 0 hosts"):
        names.choose_subnet(IPv4Network("172.30.0.0/32"), [], 1)


@pytest.mark.parametrize("text", ["x", "10.0.0.1/24", "10.0.0.0/33", "fd00::/64"])
def test_what_is_no_subnet_is_refused(text):
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        names.parse_subnet(text)
