"""The configuration of this host's HAProxy, which tells tasks their clients' addresses. Pure.

In: published ports, the gateway's subnet. Out: the whole configuration as text; empty when no port needs one.

The host's firewall leads every such port to one place, where HAProxy finds out by the connection's original
address which port it was. So it never takes a port's number from another program, and a port without tasks is
refused by the firewall like any other.

Invariant: every value that reaches the text is a number, a parsed address, or a path of ours: no user's
string can become a setting. Source: HAProxy 2.6, configuration.txt.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from swarm.model.dataplane import DataPlane, PublishedPort
from swarm.overlay.balance import PROXY_PORT, choose_backends, proxy_address

_SETTINGS = """\
global
    user haproxy
    group haproxy
    chroot {directory}/empty
    fd-hard-limit 100000
    stats socket {directory}/control.sock mode 600 level admin expose-fd listeners
defaults
    mode tcp
    balance roundrobin
    # The host of a task may have died: another is tried.
    retries 3
    option redispatch 1
    timeout connect 2s
    # A connection may be silent for as long as it likes; one whose other end is gone is found out.
    timeout client 24d
    timeout server 24d
    option clitcpka
    clitcpka-idle 60s
    clitcpka-intvl 10s
    clitcpka-cnt 6
    option srvtcpka
    srvtcpka-idle 60s
    srvtcpka-intvl 10s
    srvtcpka-cnt 6
frontend published
    bind {address}:{port}
    use_backend port-%[dst_port]
"""


def render_proxy(desired: DataPlane, gateway_subnet: str, directory: Path) -> str:
    """`directory` is where HAProxy has its control socket, and a directory to be locked up in."""
    ports = [port for port in desired.ports if port.proxy_protocol and port.backends]
    if not ports:
        return ""
    text = _SETTINGS.format(directory=directory, address=proxy_address(gateway_subnet), port=PROXY_PORT)
    return text + "".join(map(_backend, sorted(ports, key=lambda port: port.published_port)))


def _backend(port: PublishedPort) -> str:
    lines = [f"backend port-{int(port.published_port)}"]
    for backend in choose_backends(port.backends):
        address = ipaddress.IPv4Address(backend.address)
        lines.append(f"    server {address} {address}:{int(port.target_port)} send-proxy-v2")
    return "\n".join(lines) + "\n"
