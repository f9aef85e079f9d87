"""Encrypted tunnels: which keys a host holds, and what its WireGuard devices are told. Pure.

In: the cluster's generation of keys, the peers with their public keys. Out: keys to make and to forget, the
configuration of two devices as `wg` reads it, and which of the two leads to the peers.

Keys of even generations are one device's, those of odd ones the other's. Both receive at all times; what is
sent goes through the device of the cluster's generation. So the key of the next generation is known to all
before anybody sends under it, and a rotation loses nothing.

Source: wg(8); docs/networking.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarm.model.dataplane import TunnelPeer
from swarm.model.types import Encryption

PORTS = (2383, 2384)
"""UDP ports of the devices for even and for odd generations."""


@dataclass(frozen=True, slots=True)
class Peer:
    public_key: str
    address: str
    """Where it is, the only one that it may send from, and the only one that is sent to it."""


@dataclass(frozen=True, slots=True)
class Device:
    """One WireGuard device as it should be, or as it is."""

    private_key: str
    port: int
    peers: frozenset[Peer]

    def __repr__(self) -> str:
        return f"Device(port={self.port}, peers={len(self.peers)})"


def slot_of(generation: int) -> int:
    return generation % len(PORTS)


def device_name(slot: int, local: str) -> str:
    """Unique on the machine, since wireguard-go's sockets are named so for all of its namespaces."""
    return f"sww{slot}{ipaddress.IPv4Address(local).packed.hex()}"


def generations_to_hold(terms: Encryption, held: Iterable[int]) -> frozenset[int]:
    """The present one, the next while it is being prepared, and otherwise the last: others may be late."""
    if not terms.generation:
        return frozenset()
    other = terms.generation + 1 if terms.is_preparing else terms.generation - 1
    return frozenset({terms.generation} | ({other} if terms.is_preparing or other in held else set()))


def plan_devices(
    private_keys: Mapping[int, str], peers: Iterable[TunnelPeer], local: str
) -> dict[int, Device]:
    """The devices by their slots; one for each key that is held."""
    others = [peer for peer in peers if peer.host != local]
    return {
        slot_of(generation): Device(key, PORTS[slot_of(generation)], _peers(others, slot_of(generation)))
        for generation, key in private_keys.items()
    }


def _peers(peers: Iterable[TunnelPeer], slot: int) -> frozenset[Peer]:
    found = set()
    for peer in peers:
        keys = [key for key in peer.keys if slot_of(key.generation) == slot]
        if keys:
            newest = max(keys, key=lambda key: key.generation)
            found.add(Peer(newest.public_key, str(ipaddress.IPv4Address(peer.host))))
    return frozenset(found)


def render_device(device: Device) -> str:
    """What `wg syncconf` takes: sessions with peers that stay go on."""
    lines = ["[Interface]", f"PrivateKey = {device.private_key}", f"ListenPort = {device.port}"]
    for peer in sorted(device.peers, key=lambda peer: peer.address):
        lines += ["[Peer]", f"PublicKey = {peer.public_key}", f"AllowedIPs = {peer.address}/32"]
        lines += [f"Endpoint = {peer.address}:{device.port}"]
    return "\n".join(lines) + "\n"


def parse_device(dump: str) -> Device:
    """What `wg show DEVICE dump` says; a peer may answer from elsewhere, if it is the peer."""
    first, *rest = (line.split("\t") for line in dump.splitlines())
    peers = (Peer(words[0], words[3].removesuffix("/32")) for words in rest)
    return Device(first[0], int(first[2]), frozenset(peers))
