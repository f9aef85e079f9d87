from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.dataplane import OverlayEndpoint, OverlayNetwork
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
    Underlay,
    address_of,
    mac_of,
    plan_networks,
)

UNDERLAY = Underlay(address="192.0.2.1", mtu=1500)
HOSTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def network(endpoints: dict[str, str], *, host_address: str = "10.0.0.2", vni: int = 4096) -> OverlayNetwork:
    return OverlayNetwork(
        id="n1",
        vni=vni,
        subnets=("10.0.0.0/24",),
        host_address=host_address,
        endpoints=tuple(OverlayEndpoint(address=a, host=h) for a, h in endpoints.items()),
    )


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
            case RemoveSandbox():
                del state[op.network_id]
                continue
        state[op.network_id] = found
    return state


def test_own_endpoints_need_no_entry() -> None:
    ops = plan_networks([network({"10.0.0.5": "192.0.2.1", "10.0.0.6": "192.0.2.2"})], {}, UNDERLAY)
    assert [type(op) for op in ops] == [CreateSandbox, SetTunnel, SetLeg, SetEndpoint]
    assert ops[0] == CreateSandbox(network_id="n1", mtu=1450)
    assert ops[-1] == SetEndpoint(network_id="n1", address="10.0.0.6", host="192.0.2.2")


def test_a_network_stays_while_a_task_is_in_it() -> None:
    found = ObservedNetwork(network_id="n1", has_bridge=True, task_ports=frozenset({"p0a000005"}))
    assert plan_networks([], {"n1": found}, UNDERLAY) == ()
    empty = replace(found, task_ports=frozenset())
    assert plan_networks([], {"n1": empty}, UNDERLAY) == (RemoveSandbox(network_id="n1"),)


def test_another_vni_makes_the_tunnel_and_its_entries_anew() -> None:
    first = network({"10.0.0.6": "192.0.2.2"})
    state = perform({}, plan_networks([first], {}, UNDERLAY))
    ops = plan_networks([replace(first, vni=4097)], state, UNDERLAY)
    assert [type(op) for op in ops] == [SetTunnel, SetEndpoint]


def test_mac_holds_the_address() -> None:
    assert mac_of("10.0.0.5") == "02:42:0a:00:00:05"
    assert address_of(mac_of("172.31.255.254")) == "172.31.255.254"


addresses = st.integers(3, 20).map(lambda n: f"10.0.0.{n}")
endpoint_maps = st.dictionaries(addresses, st.sampled_from(HOSTS))
desired_networks = st.builds(
    lambda endpoints, leg, vni: [network(endpoints, host_address=leg, vni=vni)],
    endpoint_maps,
    st.sampled_from(["", "10.0.0.2"]),
    st.sampled_from([4096, 4097]),
) | st.just([])


@given(desired_networks, desired_networks, st.integers(0, 30))
def test_any_prefix_of_a_plan_leads_on_to_the_goal(
    before: list[OverlayNetwork], after: list[OverlayNetwork], crash_after: int
) -> None:
    state = perform({}, plan_networks(before, {}, UNDERLAY))
    assert plan_networks(before, state, UNDERLAY) == ()
    state = perform(state, plan_networks(after, state, UNDERLAY)[:crash_after])
    state = perform(state, plan_networks(after, state, UNDERLAY))
    assert plan_networks(after, state, UNDERLAY) == ()
    if after:
        remote = {e.address: e.host for e in after[0].endpoints if e.host != UNDERLAY.address}
        assert dict(state["n1"].endpoints) == remote
