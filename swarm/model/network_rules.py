"""What networks, and services on networks, must fulfil before they are stored.

In: specs. Out: nothing, or `InvalidArgument` with the sentence that Docker prints where it has one. Rules
that need other objects (a name that is taken, subnets that overlap) belong to `swarm.manager.control`.
Source: SwarmKit controlapi/network.go.
"""

from __future__ import annotations

import re

from swarm.base.errors import InvalidArgument
from swarm.model.embedded import SMALLEST_MTU
from swarm.model.ipam_rules import check_ipam
from swarm.model.networks import (
    ENCRYPTED_OPTION,
    HOST,
    MACVLAN,
    MACVLAN_MODES,
    MODE_OPTION,
    MTU_OPTION,
    NONE,
    OVERLAY,
    PARENT_OPTION,
    PREDEFINED,
    VNI_OPTION,
    mtu_of,
    needs_ingress,
    vni_of,
)
from swarm.model.specs import NetworkSpec, ServiceSpec
from swarm.model.types import NetworkAttachmentConfig

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
_ALIAS = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9_])?")
_OPTIONS = {OVERLAY: frozenset({MTU_OPTION, VNI_OPTION, ENCRYPTED_OPTION}), MACVLAN: frozenset[str]()}
_LINK = re.compile(r"[^\s/:]{1,15}")
"""What the kernel takes as a link's name."""


def validate_network_spec(spec: NetworkSpec) -> None:
    """Raises InvalidArgument for the first rule that is broken."""
    _check_name(spec.name)
    if spec.driver not in _OPTIONS:
        raise InvalidArgument(
            f'network driver "{spec.driver}" is not there: overlay, and macvlan with --config-from, are'
        )
    _check_settings(spec)
    for name in spec.options:
        if name not in _OPTIONS[spec.driver]:
            raise InvalidArgument(f"unknown option {name} of a network with driver {spec.driver}")
    mtu_of(spec)
    vni_of(spec)
    _check_ingress(spec)
    _check_ipv6(spec)
    check_ipam(spec.ipam, with_ipv6=spec.enable_ipv6)


def validate_node_settings(spec: NetworkSpec) -> None:
    """Of a config-only network, which belongs to one node. Raises InvalidArgument as above."""
    _check_name(spec.name)
    if spec.config_from:
        raise InvalidArgument("a configuration network cannot depend on another configuration network")
    if spec.ingress or spec.internal or spec.attachable:
        raise InvalidArgument(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported"
        )
    for name in spec.options:
        if name not in (PARENT_OPTION, MODE_OPTION):
            raise InvalidArgument(f"unknown option {name} of a config-only network")
    parent = spec.options.get(PARENT_OPTION, "")
    if not _LINK.fullmatch(parent) or parent in (".", ".."):
        raise InvalidArgument(
            f"invalid parent link {parent!r}: name a link of this node, as in -o {PARENT_OPTION}=eth1"
        )
    mode = spec.options.get(MODE_OPTION)
    if mode is not None and mode not in MACVLAN_MODES:
        words = ", ".join(sorted(MACVLAN_MODES))
        raise InvalidArgument(f"invalid option {MODE_OPTION}={mode}: expected one of {words}")
    if spec.enable_ipv6:
        raise InvalidArgument("macvlan networks have IPv4 only: leave out --ipv6")
    check_ipam(spec.ipam, with_ipv6=False)
    if [bool(config.subnet) for config in spec.ipam] != [True]:
        raise InvalidArgument("a config-only network needs one --subnet")


def _check_settings(spec: NetworkSpec) -> None:
    """What comes from nodes, and what from here."""
    if spec.config_only:
        raise InvalidArgument("a config-only network belongs to one node, not to the swarm")
    if spec.driver == MACVLAN and not spec.config_from:
        raise InvalidArgument(
            "a macvlan network takes its subnet and parent link from its nodes: give --config-from NETWORK, "
            "and make that on each node with network create --config-only"
        )
    if spec.config_from and spec.driver != MACVLAN:
        raise InvalidArgument(f"driver {spec.driver} takes no settings from nodes: leave out --config-from")
    if spec.config_from and (spec.options or any(config.subnet for config in spec.ipam)):
        raise InvalidArgument(
            "user supplied configurations are not supported if the network depends on a configuration network"
        )


def _check_name(name: str) -> None:
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name must be valid as a DNS name component")


def _check_ingress(spec: NetworkSpec) -> None:
    if not spec.ingress:
        return
    if spec.driver != OVERLAY:
        raise InvalidArgument("only overlay driver is currently supported for swarm ingress network")
    if spec.attachable:
        raise InvalidArgument("ingress network cannot be attachable")
    if spec.internal:
        raise InvalidArgument("ingress network cannot be internal")


def _check_ipv6(spec: NetworkSpec) -> None:
    if not spec.enable_ipv6:
        return
    if spec.driver == MACVLAN:
        raise InvalidArgument("macvlan networks have IPv4 only: leave out --ipv6")
    if spec.ingress:
        raise InvalidArgument(
            "the ingress network has IPv4 only: leave out --ipv6; published ports answer on IPv6 all the same"
        )
    if 0 < mtu_of(spec) < SMALLEST_MTU:
        raise InvalidArgument(
            f"invalid option {MTU_OPTION}={mtu_of(spec)}: IPv6 needs at least {SMALLEST_MTU}"
        )


def validate_attachments(spec: ServiceSpec) -> None:
    """Of a service; its networks are named by their ids already."""
    wanted = spec.task_template.networks
    ids = [config.target for config in wanted]
    for config in wanted:
        _check_attachment(config)
        if ids.count(config.target) > 1:
            raise InvalidArgument(f"network {config.target} is given twice")
    for alone in (HOST, NONE):
        if alone in ids and len(ids) > 1:
            raise InvalidArgument(f"network {alone} cannot be combined with other networks")
        if alone in ids and needs_ingress(spec.endpoint_spec):
            raise InvalidArgument(
                f"network {alone} cannot serve ports published in ingress mode: use mode=host"
            )
    if NONE in ids and spec.endpoint_spec and spec.endpoint_spec.ports:
        raise InvalidArgument("network none cannot serve published ports")


def _check_attachment(config: NetworkAttachmentConfig) -> None:
    if config.target in PREDEFINED and config.aliases:
        raise InvalidArgument(f"network-scoped alias is not supported on network {config.target}")
    for alias in config.aliases:
        if not _ALIAS.fullmatch(alias):
            raise InvalidArgument(
                f"invalid network alias {alias!r}: letters, digits, '-', '_' and '.', at most 63"
            )
    for name in config.driver_opts:
        raise InvalidArgument(f"unknown driver option {name} of an attachment to a network")
