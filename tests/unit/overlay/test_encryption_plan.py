from __future__ import annotations

from swarm.model.dataplane import DataPlane, OverlayNetwork, TunnelPeer
from swarm.model.types import Encryption, TunnelKey
from swarm.overlay.encryption import (
    Device,
    Peer,
    generations_to_hold,
    parse_device,
    plan_devices,
    render_device,
)
from swarm.overlay.plan import SetTunnel, Underlay, plan_networks


def test_two_generations_at_most_are_held() -> None:
    assert generations_to_hold(Encryption(), {1}) == set()
    assert generations_to_hold(Encryption(generation=1), ()) == {1}
    assert generations_to_hold(Encryption(generation=1, is_preparing=True), {1}) == {1, 2}
    assert generations_to_hold(Encryption(generation=2), {1, 2}) == {1, 2}, "others may still send under it"
    assert generations_to_hold(Encryption(generation=2, is_preparing=True), {1, 2}) == {2, 3}
    assert generations_to_hold(Encryption(generation=2), ()) == {2}, "a host that is new has no past"


def test_keys_of_odd_and_even_generations_meet_at_their_own_device() -> None:
    keys = tuple(TunnelKey(generation=g, public_key=f"b{g}") for g in (2, 3))
    peers = [TunnelPeer(host="10.9.0.1", keys=()), TunnelPeer(host="10.9.0.2", keys=keys)]
    devices = plan_devices({1: "a1", 2: "a2"}, peers, "10.9.0.1")
    assert devices == {
        0: Device("a2", 2383, frozenset({Peer("b2", "10.9.0.2")})),
        1: Device("a1", 2384, frozenset({Peer("b3", "10.9.0.2")})),
    }
    assert "a1" not in repr(devices)


def test_what_wg_says_is_what_it_was_told() -> None:
    device = Device("PRIVATE", 2383, frozenset({Peer("PUBLIC", "10.9.0.2")}))
    assert render_device(device).splitlines() == [
        "[Interface]",
        "PrivateKey = PRIVATE",
        "ListenPort = 2383",
        "[Peer]",
        "PublicKey = PUBLIC",
        "AllowedIPs = 10.9.0.2/32",
        "Endpoint = 10.9.0.2:2383",
    ]
    dump = "PRIVATE\tOWN\t2383\toff\nPUBLIC\t(none)\t10.9.0.2:2383\t10.9.0.2/32\t1700000000\t148\t92\toff\n"
    assert parse_device(dump) == device
    assert parse_device("(none)\t(none)\t0\toff\n") == Device("(none)", 0, frozenset())


def test_an_encrypted_tunnel_begins_elsewhere_and_is_never_taken_for_a_plain_one() -> None:
    def tunnel(*, encrypted: bool) -> SetTunnel:
        network = OverlayNetwork(id="n1", vni=5, encrypted=encrypted)
        underlay = Underlay(address="10.9.0.1", mtu=1500)
        ops = plan_networks(DataPlane(networks=(network,)), {}, underlay)
        return next(op for op in ops if isinstance(op, SetTunnel))

    assert (tunnel(encrypted=False).encrypted, tunnel(encrypted=True).encrypted) == (False, True)
    assert (tunnel(encrypted=False).tunnel.port, tunnel(encrypted=True).tunnel.port) == (4789, 4790)
    assert (tunnel(encrypted=False).tunnel.mtu, tunnel(encrypted=True).tunnel.mtu) == (1450, 1370)
