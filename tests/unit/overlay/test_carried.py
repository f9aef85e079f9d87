from __future__ import annotations

from dataclasses import replace

from swarm.model.dataplane import OverlayNetwork
from swarm.overlay.carried import HostAbilities, refused_networks

PLAIN = OverlayNetwork(id="n1", name="plain")
SECRET = OverlayNetwork(id="n2", name="secret", encrypted=True)
SIX = OverlayNetwork(id="n3", name="six", ipv6_subnet="fd00::/64")
ALL = (PLAIN, SECRET, SIX)


def test_a_host_that_can_do_all_carries_all() -> None:
    assert refused_networks(ALL, HostAbilities()) == {}


def test_what_a_host_cannot_do_is_refused_with_the_reason() -> None:
    assert refused_networks(ALL, HostAbilities(encryption_problem="wg is not installed")) == {
        "n2": "network secret is encrypted, and this host cannot encrypt: wg is not installed"
    }
    assert refused_networks(ALL, HostAbilities(has_ipv6=False)) == {
        "n3": "network six has IPv6, and this host's kernel has none: boot it with IPv6"
    }


def test_links_too_small_for_ipv6() -> None:
    small = HostAbilities(wire_mtu=1320)
    assert refused_networks(ALL, small) == {
        "n3": "network six has IPv6, which needs links of 1280 bytes: this host's network leaves 1270"
    }
    assert refused_networks([SIX], replace(small, wire_mtu=1330)) == {}
    both = replace(SIX, encrypted=True)
    assert refused_networks([both], replace(small, wire_mtu=1330)).keys() == {"n3"}
