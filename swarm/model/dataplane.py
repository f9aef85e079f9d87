"""Desired network state of one host, as its manager pushes it and `swarm.overlay` makes it true.

Addresses are plain strings without prefix unless a field says CIDR; `host` is a host's data-path address.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm.model.types import Encryption, NetworkAttachment, PortConfig, Protocol, TunnelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayEndpoint:
    """One address on an overlay and the host that has it (a task's, or a host's own leg)."""

    address: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkEndpoint:
    """An endpoint as an assignment of its own, so that a change of one costs its own size."""

    network_id: str = ""
    endpoint: OverlayEndpoint = field(default_factory=OverlayEndpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayNetwork:
    id: str = ""
    name: str = ""
    vni: int = 0
    subnets: tuple[str, ...] = ()
    """CIDR, of IPv4."""
    ipv6_subnet: str = ""
    """CIDR; empty where the network has IPv4 only. See `swarm.model.embedded`."""
    data_path_port: int = 4789
    mtu: int = 0
    """Of its links; 0 takes what the hosts' network leaves."""
    encrypted: bool = False
    """Its packets may leave the host in the encrypted tunnel only."""
    host_address: str = ""
    """This host's own address on the network; empty when the host itself has no leg in it."""
    internal: bool = False
    """Nothing leads out of it, nor are names asked for elsewhere."""
    endpoints: tuple[OverlayEndpoint, ...] = ()
    """Every other host's endpoints and this host's own, in address order."""

    @property
    def all_subnets(self) -> tuple[str, ...]:
        """Of both families."""
        return (*self.subnets, self.ipv6_subnet) if self.ipv6_subnet else self.subnets


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    address: str = ""
    """On the ingress network."""
    suspect: bool = False
    """The session of its host is broken: use it only when no other backend is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port that every host answers on, and the tasks behind it (ingress mode)."""

    service_id: str = ""
    protocol: Protocol = Protocol.TCP
    published_port: int = 0
    target_port: int = 0
    backends: tuple[Backend, ...] = ()
    preserves_source: bool = False
    """Backends on the host that a client came to see the client's own address."""
    proxy_protocol: bool = False
    """Connections go through the host's proxy, which tells backends the client's address (PROXY v2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBackend:
    """A healthy running task of a service, on one network."""

    address: str = ""
    suspect: bool = False
    """As of `Backend`: connections go to others while there are any."""
    names: tuple[str, ...] = ()
    """What it alone is called: its task's name, its container's short id, its hostname."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkService:
    """A service as one network sees it: its names, its virtual address, and the tasks behind it."""

    network_id: str = ""
    service_id: str = ""
    name: str = ""
    virtual_ip: str = ""
    """Empty when its name stands for the tasks themselves (`dnsrr`)."""
    aliases: tuple[str, ...] = ()
    """Further names on this network."""
    backends: tuple[ServiceBackend, ...] = ()
    """In address order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPeer:
    """A host to which encrypted tunnels lead."""

    host: str = ""
    """Its data-path address."""
    keys: tuple[TunnelKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlane:
    networks: tuple[OverlayNetwork, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    services: tuple[NetworkService, ...] = ()
    encryption: Encryption = field(default_factory=Encryption)
    peers: tuple[TunnelPeer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNetwork:
    """What one task's network namespace needs."""

    task_id: str = ""
    attachments: tuple[NetworkAttachment, ...] = ()
    host_ports: tuple[PortConfig, ...] = field(default_factory=tuple)
    """Ports in host mode: only this host answers, and only with this task."""
    slot: str = ""
    """The place in its service, if any: a task can be made beside the one whose place and ports it takes."""
    is_internal: bool = False
    """All of its networks are internal, or one has a way out of its own: the host's gateway is not for it."""
    names_on: tuple[str, ...] = ()
    """The networks whose names it sees, by id, in the order in which they are asked."""
    nameservers: tuple[str, ...] = ()
    """Who is asked for names that are not of its networks."""
