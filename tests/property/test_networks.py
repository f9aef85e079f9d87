"""Whatever users do with networks, wherever a leader dies: no address, subnet or number is there twice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_interface, ip_network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from swarm.base.errors import SwarmError
from swarm.base.ids import NetworkID
from swarm.manager.allocator.addresses import holdings
from swarm.manager.allocator.networks import held
from swarm.manager.control.networks import new_network
from swarm.model.objects import Network, Service, Task
from swarm.model.specs import NetworkSpec
from swarm.model.types import IPAMConfig
from swarm.model.view import find
from tests.scenarios.env import Scenario

NETWORKS = ("a", "b", "c")
SERVICES = ("web", "db")
SUBNETS = ("", "", "10.9.0.0/29", "10.9.0.8/29", "10.60.0.8/29")
networks = st.sampled_from(NETWORKS)
services = st.sampled_from(SERVICES)


class Networks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scenario = Scenario()
        self.cluster = self.scenario.cluster
        self.scenario.run("set-pool 10.60.0.0/27 29")
        for name in ("n1", "n2"):
            self.scenario.run(f"add-node {name}")

    @rule(
        name=networks,
        subnet=st.sampled_from(SUBNETS),
        vni=st.sampled_from(("", "4097", "77")),
        ipv6=st.sampled_from(("", "ipv6", "ipv6 subnet=fd00:9::/64", "ipv6 subnet=fd00:9::/96")),
    )
    def create_network(self, name: str, subnet: str, vni: str, ipv6: str) -> None:
        more = [f"subnet={subnet}"] if subnet else []
        more += [f"vni={vni}"] if vni else []
        more += [ipv6] if ipv6 else []
        self.scenario.run(" ".join(["create-network", name, *more]))

    @rule(subnets=st.tuples(st.sampled_from(SUBNETS), st.sampled_from(SUBNETS)))
    def create_two_at_once(self, subnets: tuple[str, str]) -> None:
        """By two managers, neither of which knows of the other's."""
        with suppress(SwarmError):
            made = [
                new_network(
                    self.cluster.objects,
                    NetworkSpec(name=name, ipam=(IPAMConfig(subnet=subnet),)),
                    NetworkID(self.cluster.new_id() + name),
                )
                for name, subnet in zip(NETWORKS, subnets, strict=False)
            ]
            for network in made:
                self.cluster.write(network)

    @rule(name=networks)
    def remove_network(self, name: str) -> None:
        self.scenario.run(f"rm-network {name}")

    @rule(name=services, on=st.sets(networks), replicas=st.integers(1, 6))
    def create_service(self, name: str, on: set[str], replicas: int) -> None:
        if not self.cluster.objects.named(Service, name):
            self.scenario.run(f"create-service {name} replicas={replicas} {self.those_of(on)}")

    @rule(name=services, on=st.sets(networks, min_size=1), mode=st.sampled_from(("vip", "dnsrr")))
    def update_service(self, name: str, on: set[str], mode: str) -> None:
        if self.cluster.objects.named(Service, name):
            self.scenario.run(f"update-service {name} endpoint={mode} {self.those_of(on)}")

    def those_of(self, names: set[str]) -> str:
        """The networks that there are."""
        found = [name for name in sorted(names) if self.cluster.objects.named(Network, name)]
        return " ".join(f"network={name}" for name in found)

    @rule(name=services)
    def remove_service(self, name: str) -> None:
        with suppress(SwarmError):
            self.cluster.remove_service(find(self.cluster.objects, Service, name).id)

    @rule(slowly=st.booleans())
    def stop_slowly(self, *, slowly: bool) -> None:
        self.scenario.run(f"slow-stops n1 {'on' if slowly else 'off'}")

    @rule(prefix=st.integers(0, 3))
    def leader_dies(self, prefix: int) -> None:
        self.cluster.lead(prefix)

    @rule()
    def settle(self) -> None:
        self.cluster.tick(timedelta(seconds=30))

    @invariant()
    def nobody_shares_an_address(self) -> None:
        held = Counter((h.network_id, h.number) for h in holdings(self.cluster.objects) if h.is_held)
        assert max(held.values(), default=1) == 1, held.most_common(1)

    @invariant()
    def nobody_shares_a_number_or_a_subnet(self) -> None:
        found = self.cluster.objects.list(Network)
        numbers = [network.vni for network in found if network.vni]
        assert len(numbers) == len(set(numbers))
        subnets = [ip_network(config.subnet) for network in found for config in network.ipam]
        assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[:i])

    @invariant()
    def addresses_are_the_networks_own(self) -> None:
        known = {network.id: network for network in self.cluster.objects.list(Network)}
        for task in self.cluster.objects.list(Task):
            for attachment in task.attachments:
                network = known.get(attachment.network_id)
                assert network is not None or not held(task)
                for address in attachment.addresses if network else ():
                    own = ip_interface(address)
                    assert any(own.network == ip_network(config.subnet) for config in network.ipam)
                    assert str(own.ip) not in {config.gateway for config in network.ipam}
                if network and attachment.addresses:
                    assert len(attachment.addresses) == len({":" in config.subnet for config in network.ipam})

    def teardown(self) -> None:
        """Without services every removed network goes, and every service has its addresses until then."""
        self.scenario.run("slow-stops n1 off")
        self.settle()
        for name in SERVICES:
            self.remove_service(name)
        for name in NETWORKS:
            self.scenario.run(f"rm-network {name}")
        self.settle()
        assert [network.spec.name for network in self.cluster.objects.list(Network)] == ["ingress"]


TestNetworks = Networks.TestCase
TestNetworks.settings = settings(max_examples=60, stateful_step_count=25)
