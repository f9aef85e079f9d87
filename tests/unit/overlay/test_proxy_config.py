from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swarm.model.dataplane import Backend, DataPlane, PublishedPort
from swarm.overlay.balance import plan_rules, render_change
from swarm.overlay.proxy_config import render_proxy

SUBNET = "172.18.0.0/16"
RUN = Path("/run/swarm/proxy")


def proxied(number: int, *backends: Backend) -> PublishedPort:
    return PublishedPort(published_port=number, target_port=80, proxy_protocol=True, backends=backends)


def test_backends_of_each_port_but_those_under_suspicion() -> None:
    sound, suspect = Backend(address="10.0.0.5"), Backend(address="10.0.0.6", suspect=True)
    plain = PublishedPort(published_port=70, target_port=70, backends=(sound,))
    desired = DataPlane(ports=(proxied(90, suspect), plain, proxied(80, sound, suspect), proxied(60)))
    text = render_proxy(desired, SUBNET, RUN)
    assert text[text.index("frontend") :].splitlines() == [
        "frontend published",
        "    bind 172.18.0.1:2385",
        "    use_backend port-%[dst_port]",
        "backend port-80",
        "    server 10.0.0.5 10.0.0.5:80 send-proxy-v2",
        "backend port-90",
        "    server 10.0.0.6 10.0.0.6:80 send-proxy-v2",
    ]


def test_no_such_port_needs_no_proxy() -> None:
    plain = PublishedPort(published_port=70, target_port=70, backends=(Backend(address="10.0.0.5"),))
    assert render_proxy(DataPlane(ports=(plain, proxied(60))), SUBNET, RUN) == ""


def test_the_firewall_leads_to_the_proxy_while_there_are_tasks() -> None:
    nobody = plan_rules(DataPlane(ports=(proxied(80),)), [], SUBNET)
    one = plan_rules(DataPlane(ports=(proxied(80, Backend(address="10.0.0.5")),)), [], SUBNET)
    two = plan_rules(
        DataPlane(ports=(proxied(80, Backend(address="10.0.0.5"), Backend(address="10.0.0.6")),)), [], SUBNET
    )
    assert render_change(nobody, one).splitlines() == [
        "delete element ip swarm unserved { tcp . 80 }",
        "add chain ip swarm port-tcp-80",
        "add rule ip swarm port-tcp-80 meta l4proto tcp dnat ip to numgen inc mod 1 map "
        "{ 0 : 172.18.0.1 . 2385 }",
        "add element ip swarm published { tcp . 80 : jump port-tcp-80 }",
    ]
    assert render_change(one, two) == ""
    desired = DataPlane(ports=(proxied(80, Backend(address="10.0.0.5")),))
    assert plan_rules(desired, [], SUBNET, has_proxy=False) == nobody, (
        "whoever listens there, it is not the proxy"
    )


@pytest.mark.parametrize("address", ["10.0.0.5 check", "web", "10.0.0.5\nfrontend x"])
def test_nothing_but_addresses_gets_into_the_text(address: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear to be|Expected 4 octets|Only decimal digits"):
        render_proxy(DataPlane(ports=(proxied(80, Backend(address=address)),)), SUBNET, RUN)


def test_haproxy_takes_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        render_proxy(DataPlane(ports=(proxied(80, Backend(address="10.0.0.5")),)), SUBNET, tmp_path)
    )
    done = subprocess.run(["haproxy", "-c", "-f", str(config)], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
