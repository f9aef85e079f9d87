"""Whoever asks is told of his own networks only, whatever services there are and whatever he asks for."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from swarm.model.dataplane import DataPlane, NetworkService, OverlayNetwork, ServiceBackend
from swarm.overlay.dns import wire
from swarm.overlay.dns.answers import answer
from swarm.overlay.dns.state import NameState
from swarm.overlay.names import plan_names
from swarm.overlay.records import TaskRecord

SUBNETS = {f"n{number}": f"10.0.{number}.0/24" for number in (1, 2, 3)}
IPV6_SUBNETS = {name: f"fd00:{number}::/64" for number, name in enumerate(SUBNETS, start=1)}
NETWORKS = tuple(
    OverlayNetwork(id=name, name=f"net-{name}", subnets=(subnet,), ipv6_subnet=IPV6_SUBNETS[name])
    for name, subnet in SUBNETS.items()
)
words = st.sampled_from(["web", "db", "www", "secret"])
ends = st.integers(2, 250)


@st.composite
def services(draw: st.DrawFn) -> NetworkService:
    """With names that others have, too, on addresses of its own network."""
    network = draw(st.sampled_from(sorted(SUBNETS)))
    first = IPv4Network(SUBNETS[network]).network_address
    name = draw(words)
    return NetworkService(
        network_id=network,
        service_id=f"{name}-{network}",
        name=name,
        aliases=tuple(draw(st.lists(words, max_size=2))),
        virtual_ip=str(first + draw(ends)) if draw(st.booleans()) else "",
        backends=tuple(
            ServiceBackend(address=str(first + end), names=(f"{name}.{end}.{network}", f"id{network}{end}"))
            for end in draw(st.lists(ends, max_size=3, unique=True))
        ),
    )


@st.composite
def questions(draw: st.DrawFn) -> str:
    network = draw(st.sampled_from(sorted(SUBNETS)))
    end = draw(ends)
    return draw(
        st.sampled_from(
            [
                *(f"{before}{{}}{after}" for before in ("", "tasks.") for after in ("", f".net-{network}")),
                f"{{}}.{end}.{network}",
                f"id{network}{end}",
                ".".join(reversed(str(IPv4Network(SUBNETS[network])[end]).split("."))) + ".in-addr.arpa",
            ]
        )
    ).format(draw(words))


@given(
    found=st.lists(services(), max_size=8, unique_by=lambda s: (s.network_id, s.service_id)),
    on=st.sets(st.sampled_from(sorted(SUBNETS)), min_size=1, max_size=2),
    asked=st.lists(questions(), min_size=1, max_size=8),
)
def test_no_name_or_address_of_another_network_is_told(
    found: list[NetworkService], on: set[str], asked: list[str]
) -> None:
    others = [("other", tuple(sorted(SUBNETS.keys() - on))), ("own", tuple(sorted(on)))]
    records = [
        TaskRecord(task_id=task, gateway_address="172.18.0.2", names_on=networks) for task, networks in others
    ]
    state = NameState()
    state.change(
        plan_names(
            DataPlane(networks=NETWORKS, services=tuple(found)), records, lambda n: Path("/netns") / n
        ),
        [],
    )
    view = state.view("own")
    own_subnets = [ip_network(subnets[network]) for subnets in (SUBNETS, IPV6_SUBNETS) for network in on]
    foreign = {f"net-{network}" for network in SUBNETS.keys() - on}
    for name in asked:
        for kind in (wire.TYPE_A, wire.TYPE_AAAA, wire.TYPE_PTR):
            told = answer(view, name, kind)
            for data in told.data if told else ():
                if kind != wire.TYPE_PTR:
                    assert any(ip_address(data) in subnet for subnet in own_subnets), name
                else:
                    assert not any(word.encode() in data for word in foreign), name
