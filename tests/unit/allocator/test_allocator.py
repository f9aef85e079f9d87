from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.base.ids import ServiceID
from swarm.manager.allocator.ipam import AddressPool, choose_subnet, gateway_of, number_of
from swarm.manager.allocator.ports import allocate_ports
from swarm.model.defaults import DYNAMIC_PORTS
from swarm.model.objects import Service
from swarm.model.specs import ServiceSpec
from swarm.model.types import EndpointSpec, IPAMConfig, PortConfig, Protocol, PublishMode
from swarm.model.view import Objects

WEB = ServiceID("web")


def spec(*ports: PortConfig) -> ServiceSpec:
    return ServiceSpec(name="web", endpoint_spec=EndpointSpec(ports=ports))


def numbers(endpoint_ports: tuple[PortConfig, ...]) -> list[int]:
    return [port.published_port for port in endpoint_ports]


def test_a_dynamic_port_is_kept_when_others_come_and_go() -> None:
    first, second = PortConfig(target_port=80), PortConfig(target_port=81)
    before = allocate_ports(Objects(), spec(first, second), None)
    assert numbers(before.ports) == [30000, 30001]
    objects = Objects([Service(id=WEB, spec=spec(first, second), endpoint=before)])
    third = PortConfig(target_port=82)
    assert numbers(allocate_ports(objects, spec(third, second), WEB).ports) == [30000, 30001]
    assert numbers(allocate_ports(objects, spec(second), WEB).ports) == [30001]


def test_a_service_may_keep_its_own_ports() -> None:
    port = PortConfig(target_port=80, published_port=8080)
    web = Service(id=WEB, spec=spec(port), endpoint=allocate_ports(Objects(), spec(port), None))
    assert allocate_ports(Objects([web]), spec(port), WEB) == web.endpoint
    with pytest.raises(InvalidArgument, match=r"port '8080' is already in use by service 'web' \(web\)"):
        allocate_ports(Objects([web]), spec(port), None)


def test_a_host_mode_port_is_in_the_way_of_an_ingress_port_and_not_of_its_like() -> None:
    port = PortConfig(target_port=80, published_port=8080, publish_mode=PublishMode.HOST)
    web = Service(id=WEB, spec=spec(port), endpoint=allocate_ports(Objects(), spec(port), None))
    assert allocate_ports(Objects([web]), spec(port), None).ports == (port,)
    with pytest.raises(InvalidArgument, match="as a host-published port"):
        allocate_ports(Objects([web]), spec(replace(port, publish_mode=PublishMode.INGRESS)), None)


def test_dynamic_ports_run_out_per_protocol() -> None:
    taken = tuple(PortConfig(target_port=number, published_port=number) for number in DYNAMIC_PORTS)
    other = Service(id=ServiceID("other"), endpoint=allocate_ports(Objects(), spec(*taken), None))
    with pytest.raises(FailedPrecondition, match="no tcp port is free from 30000 to 32767"):
        allocate_ports(Objects([other]), spec(PortConfig(target_port=80)), None)
    udp = spec(PortConfig(target_port=80, protocol=Protocol.UDP))
    assert numbers(allocate_ports(Objects([other]), udp, None).ports) == [30000]


@given(st.lists(st.integers(1, 13), unique=True, max_size=13), st.integers(0, 14))
def test_a_pool_gives_every_free_address_once_and_begins_behind_the_last(used: list[int], last: int) -> None:
    base = number_of("10.0.0.0")
    pool = AddressPool(
        (IPAMConfig(subnet="10.0.0.0/28"),), used={base + number for number in used}, last=base + last
    )
    given_out = []
    while (address := pool.take()) is not None:
        given_out.append(number_of(address) - base)
    free = [number for number in range(1, 15) if number not in used]
    assert sorted(given_out) == free
    assert given_out == [n for n in free if n > last] + [n for n in free if n <= last]


@given(
    st.lists(st.tuples(st.integers(0, 63), st.integers(26, 32)), max_size=6),
    st.integers(27, 30),
)
def test_the_first_free_subnet_is_chosen_and_only_a_full_pool_has_none(
    numbers: list[tuple[int, int]], size: int
) -> None:
    pool = IPv4Network("10.0.0.0/26")
    taken = [IPv4Network((int(pool.network_address) + n, prefix), strict=False) for n, prefix in numbers]
    free = [s for s in pool.subnets(new_prefix=size) if not any(s.overlaps(other) for other in taken)]
    assert choose_subnet([pool], size, taken) == (str(free[0]) if free else None)


def test_the_gateway_is_the_first_address() -> None:
    assert gateway_of("10.0.0.0/20") == "10.0.0.1"
