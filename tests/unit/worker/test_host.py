from __future__ import annotations

import sys

import pytest

from swarm.worker.host import SUBNETS_LIMIT, host_subnets

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
swl001000\t0000000A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
swarm-gw\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table above is of such a machine")
def test_the_default_route_and_routes_into_overlays_are_not_the_hosts_own_subnets() -> None:
    assert host_subnets(ROUTES) == ("10.213.0.0/24", "172.18.0.0/16")


def test_no_table_and_an_empty_one() -> None:
    assert host_subnets("") == ()
    assert host_subnets(ROUTES.splitlines()[0]) == ()


@pytest.mark.skipif(sys.byteorder != "little", reason="the table above is of such a machine")
def test_a_routers_table_is_cut() -> None:
    head, _, line, *_ = ROUTES.splitlines()
    lines = [line.replace("0000D50A", f"00{number:02X}D50A") for number in range(256)]
    lines += [line.replace("0000D50A", f"00{number:02X}010A") for number in range(0, 256, 2)]
    lines += [line.replace("0000D50A", f"00{number:02X}030A") for number in range(0, 256, 2)]
    assert len(host_subnets("\n".join([head, *lines]))) == SUBNETS_LIMIT
