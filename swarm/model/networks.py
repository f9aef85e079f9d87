"""Networks by name: those that users make, and the three that every host has; and what options mean. Pure.

Invariant: a network that its user has removed is found by its id only, so its name is free at once.
Source: Docker Engine API 1.50, libnetwork's overlay driver (names of options).
"""

from __future__ import annotations

from swarm.base.errors import InvalidArgument
from swarm.base.ids import NetworkID
from swarm.model.objects import Network, Task
from swarm.model.specs import NetworkSpec, ServiceSpec
from swarm.model.types import EndpointSpec, PublishMode
from swarm.model.view import ClusterView, find

OVERLAY, MACVLAN = "overlay", "macvlan"
MTU_OPTION = "com.docker.network.driver.mtu"
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
ENCRYPTED_OPTION = "encrypted"
PARENT_OPTION, MODE_OPTION = "parent", "macvlan_mode"
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
"""By name, as the kernel numbers them (linux/if_link.h)."""
DEFAULT_MACVLAN_MODE = "bridge"
CONFIG_DRIVER = "null"
"""Of a node's settings, which are no network: what Docker says whatever was asked for."""

BRIDGE, HOST, NONE = "bridge", "host", "none"
PREDEFINED = {
    name: Network(id=NetworkID(name), spec=NetworkSpec(name=name, driver=driver))
    for name, driver in ((BRIDGE, "bridge"), (HOST, "host"), (NONE, "null"))
}
"""By name, which is also the id: `bridge` leads out of the host and to nobody, `host` is the host's own, and
`none` has a loopback only."""


def find_network(view: ClusterView, reference: str) -> Network:
    """As `find`; the predefined networks are found by their exact name. Raises: NotFound, Ambiguous."""
    return PREDEFINED.get(reference) or find(view, Network, reference)


def list_networks(view: ClusterView) -> list[Network]:
    """Those that users can name, but for the predefined ones."""
    return [network for network in view.list(Network) if not network.is_removed]


def scope_of(network: Network) -> str:
    return "local" if network.id in PREDEFINED or network.spec.config_only else "swarm"


def find_ingress(view: ClusterView) -> Network | None:
    return next((network for network in list_networks(view) if network.spec.ingress), None)


def network_ids(spec: ServiceSpec) -> frozenset[str]:
    """The networks that a stored spec names."""
    return frozenset(wanted.target for wanted in spec.task_template.networks)


def needs_ingress(endpoint: EndpointSpec | None) -> bool:
    return any(port.publish_mode is PublishMode.INGRESS for port in (endpoint.ports if endpoint else ()))


def is_attached(task: Task, network_id: str) -> bool:
    """Whether the task has, or waits for, an address there."""
    return any(found.network_id == network_id for found in task.attachments) or any(
        wanted.target == network_id for wanted in task.spec.networks
    )


def mtu_of(spec: NetworkSpec) -> int:
    """0 where none is given. Raises: InvalidArgument."""
    text = spec.options.get(MTU_OPTION, "")
    if not text:
        return 0
    if not text.isdecimal() or not 576 <= int(text) <= 9166:
        raise InvalidArgument(f"invalid option {MTU_OPTION}={text}: expected a number from 576 to 9166")
    return int(text)


def vni_of(spec: NetworkSpec) -> int:
    """The VXLAN network identifier asked for; 0 where none is. Raises: InvalidArgument."""
    text = spec.options.get(VNI_OPTION, "")
    if not text:
        return 0
    numbers = text.split(",")
    if len(numbers) > 1:
        raise InvalidArgument(
            f"invalid option {VNI_OPTION}={text}: one number serves all subnets of a network"
        )
    if not text.isdecimal() or not 1 <= int(text) < 1 << 24:
        raise InvalidArgument(
            f"invalid option {VNI_OPTION}={text}: expected a number from 1 to {(1 << 24) - 1}"
        )
    return int(text)


def is_encrypted(spec: NetworkSpec) -> bool:
    """The option alone says so, as with Docker; only `false` takes it back."""
    return ENCRYPTED_OPTION in spec.options and spec.options[ENCRYPTED_OPTION] != "false"
