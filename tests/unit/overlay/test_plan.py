from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.dataplane import DataPlane, NetworkService, OverlayEndpoint, OverlayNetwork, ServiceBackend
from swarm.overlay.plan import (
    CreateSandbox,
    DeleteEndpoint,
    DeleteLeg,
    ObservedNetwork,
    Op,
    RemoveSandbox,
    SetEndpoint,
    SetLeg,
    SetTunnel,
    SetVirtual,
    Underlay,
    address_of,
    mac_of,
    plan_networks,
    planned_part,
)

UNDERLAY = Underlay(address="192.0.2.1", mtu=1500)
HOSTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def network(
    endpoints: dict[str, str], *, host_address: str = "10.0.0.2", vni: int = 4096, ipv6_subnet: str = ""
) -> OverlayNetwork:
    return OverlayNetwork(
        id="n1",
        vni=vni,
        ipv6_subnet=ipv6_subnet,
        subnets=("10.0.0.0/24",),
        host_address=host_address,
        endpoints=tuple(OverlayEndpoint(address=a, host=h) for a, h in endpoints.items()),
    )


def plan(
    networks: list[OverlayNetwork],
    observed: dict[str, ObservedNetwork],
    underlay: Underlay,
    virtual: frozenset[str] = frozenset(),
) -> tuple[Op, ...]:
    services = tuple(NetworkService(network_id="n1", service_id=a, virtual_ip=a) for a in virtual)
    return plan_networks(DataPlane(networks=tuple(networks), services=services), observed, underlay)


def perform(observed: dict[str, ObservedNetwork], ops: tuple[Op, ...]) -> dict[str, ObservedNetwork]:
    """What the kernel would hold afterwards."""
    state = dict(observed)
    for op in ops:
        found = state.get(op.network_id, ObservedNetwork(network_id=op.network_id))
        match op:
            case CreateSandbox():
                found = ObservedNetwork(
                    network_id=op.network_id, has_bridge=True, task_ports=found.task_ports
                )
            case SetTunnel():
                found = replace(found, tunnel=op.tunnel, endpoints={})
            case SetLeg():
                found = replace(found, leg=op.address)
            case DeleteLeg():
                found = replace(found, leg="")
            case SetEndpoint():
                found = replace(found, endpoints={**found.endpoints, op.address: op.host})
            case DeleteEndpoint():
                rest = {a: h for a, h in found.endpoints.items() if a != op.address}
                found = replace(found, endpoints=rest)
            case SetVirtual():
                found = replace(
                    found,
                    virtual=(found.virtual - {*op.removed}) | {*op.added},
                    routes=found.routes | {*op.routes},
                )
            case RemoveSandbox():
                del state[op.network_id]
                continue
        state[op.network_id] = found
    return state


def test_own_endpoints_need_no_entry() -> None:
    ops = plan([network({"10.0.0.5": "192.0.2.1", "10.0.0.6": "192.0.2.2"})], {}, UNDERLAY)
    assert [type(op) for op in ops] == [CreateSandbox, SetTunnel, SetLeg, SetEndpoint]
    assert ops[0] == CreateSandbox(network_id="n1", mtu=1450)
    assert ops[-1] == SetEndpoint(network_id="n1", address="10.0.0.6", host="192.0.2.2")


def test_a_network_stays_while_a_task_is_in_it() -> None:
    found = ObservedNetwork(network_id="n1", has_bridge=True, task_ports=frozenset({"p0a000005"}))
    assert plan([], {"n1": found}, UNDERLAY) == ()
    empty = replace(found, task_ports=frozenset())
    assert plan([], {"n1": empty}, UNDERLAY) == (RemoveSandbox(network_id="n1"),)


def test_another_vni_makes_the_tunnel_and_its_entries_anew() -> None:
    first = network({"10.0.0.6": "192.0.2.2"})
    state = perform({}, plan([first], {}, UNDERLAY))
    ops = plan([replace(first, vni=4097)], state, UNDERLAY)
    assert [type(op) for op in ops] == [SetTunnel, SetEndpoint]


def test_a_virtual_address_needs_a_route_to_its_tasks() -> None:
    virtual = frozenset({"10.0.0.200"})
    ops = plan([network({})], perform({}, plan([network({})], {}, UNDERLAY)), UNDERLAY, virtual)
    assert ops == (SetVirtual(network_id="n1", routes=("10.0.0.0/24",), added=("10.0.0.200",)),)


def test_ipv6_addresses_go_along() -> None:
    six = network({"10.0.0.6": "192.0.2.2"}, host_address="", ipv6_subnet="fd00::/64")
    ops = plan([six], {}, UNDERLAY, frozenset({"10.0.0.200"}))
    assert ops[0] == CreateSandbox(network_id="n1", mtu=1450, with_ipv6=True)
    assert ops[2:] == (
        SetEndpoint(network_id="n1", address="10.0.0.6", host="192.0.2.2"),
        SetEndpoint(network_id="n1", address="fd00::a00:6", host="192.0.2.2"),
        SetVirtual(
            network_id="n1",
            routes=("10.0.0.0/24", "fd00::/64"),
            added=("10.0.0.200", "fd00::a00:c8"),
        ),
    )
    state = perform({}, ops)
    assert plan([six], state, UNDERLAY, frozenset({"10.0.0.200"})) == ()
    gone = plan([replace(six, endpoints=())], state, UNDERLAY, frozenset({"10.0.0.200"}))
    assert {op.address for op in gone if isinstance(op, DeleteEndpoint)} == {"10.0.0.6", "fd00::a00:6"}


def test_only_networks_and_virtual_addresses_are_planned() -> None:
    service = NetworkService(network_id="n1", virtual_ip="10.0.0.200")
    before = DataPlane(networks=(network({}),), services=(service,))
    scaled = replace(service, backends=(ServiceBackend(address="10.0.0.5"),))
    assert planned_part(replace(before, services=(scaled,))) == planned_part(before)
    moved = replace(service, virtual_ip="10.0.0.201")
    assert planned_part(replace(before, services=(moved,))) != planned_part(before)
    assert planned_part(replace(before, networks=(network({"10.0.0.6": "192.0.2.2"}),))) != planned_part(
        before
    )


def test_mac_holds_the_address() -> None:
    assert mac_of("10.0.0.5") == "02:42:0a:00:00:05"
    assert address_of(mac_of("172.31.255.254")) == "172.31.255.254"
    assert mac_of("fd00::a00:5") == mac_of("10.0.0.5"), "one link has both"


addresses = st.integers(3, 20).map(lambda n: f"10.0.0.{n}")
endpoint_maps = st.dictionaries(addresses, st.sampled_from(HOSTS))
desired_networks = st.builds(
    lambda endpoints, leg, vni: [network(endpoints, host_address=leg, vni=vni)],
    endpoint_maps,
    st.sampled_from(["", "10.0.0.2"]),
    st.sampled_from([4096, 4097]),
) | st.just([])


virtual_addresses = st.frozensets(st.integers(200, 205).map(lambda n: f"10.0.0.{n}"))


@given(desired_networks, desired_networks, st.integers(0, 30), virtual_addresses, virtual_addresses)
def test_any_prefix_of_a_plan_leads_on_to_the_goal(
    before: list[OverlayNetwork],
    after: list[OverlayNetwork],
    crash_after: int,
    former: frozenset[str],
    virtual: frozenset[str],
) -> None:
    state = perform({}, plan(before, {}, UNDERLAY, former))
    assert plan(before, state, UNDERLAY, former) == ()
    state = perform(state, plan(after, state, UNDERLAY, virtual)[:crash_after])
    state = perform(state, plan(after, state, UNDERLAY, virtual))
    assert plan(after, state, UNDERLAY, virtual) == ()
    if after:
        remote = {e.address: e.host for e in after[0].endpoints if e.host != UNDERLAY.address}
        assert dict(state["n1"].endpoints) == remote
        assert state["n1"].virtual == virtual
