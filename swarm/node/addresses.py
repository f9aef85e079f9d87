"""Which addresses this host has, and which one a user's `--advertise-addr` means."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from dataclasses import dataclass

from swarm.base.errors import InvalidArgument, Unavailable
from swarm.model.defaults import JOIN_PORT

OURS = ("swarm-gw", "swl", "lo")
"""Interfaces that swarmd makes itself, by the start of their names."""
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class LocalAddress:
    interface: str
    address: str


async def local_addresses() -> tuple[LocalAddress, ...]:
    """The host's IPv4 addresses of global scope, but for those on interfaces of ours."""
    process = await asyncio.create_subprocess_exec(
        "ip", "-j", "-4", "address", "show", "scope", "global", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate()
    return tuple(
        LocalAddress(link["ifname"], info["local"])
        for link in json.loads(output or b"[]")
        for info in link.get("addr_info", ())
        if not link["ifname"].startswith(OURS)
    )


def choose_advertised(wanted: str, local: tuple[LocalAddress, ...]) -> tuple[str, int]:
    """(address, join port) that `wanted` (address or interface, perhaps with :port) stands for.

    Raises: InvalidArgument, naming the way out.
    """
    if not wanted:
        return _only(local), JOIN_PORT
    host, port = split_port(wanted, JOIN_PORT)
    on_interface = [a.address for a in local if a.interface == host]
    if len(on_interface) > 1:
        raise InvalidArgument(
            f"interface {host} has more than one IPv4 address ({' and '.join(on_interface)}): "
            "advertise one of them by address"
        )
    if on_interface:
        return on_interface[0], port
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidArgument(
            f"advertise address must be a non-zero IP address or network interface (with optional port "
            f"number): {wanted}"
        ) from None
    if address.is_unspecified or address.version != 4:
        raise InvalidArgument(f"advertise address must be a non-zero IPv4 address: {wanted}")
    return str(address), port


def choose_listen(wanted: str) -> str:
    """The address of `--listen-addr`; its port must be the join port's. Raises: InvalidArgument."""
    if not wanted:
        return "0.0.0.0"  # noqa: S104 - Docker's default; --listen-addr narrows it
    host, port = split_port(wanted, JOIN_PORT)
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise InvalidArgument(
            f"listen address must be an IPv4 address (with optional port): {wanted}"
        ) from None
    if port != JOIN_PORT:
        raise InvalidArgument(f"listen address cannot use port {port}: nodes join on {JOIN_PORT}")
    return str(address)


def split_port(text: str, default: int) -> tuple[str, int]:
    """`host[:port]` taken apart. Raises: InvalidArgument."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, default
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"invalid port in address {text!r}")
    return host, int(port)


async def source_towards(host: str, port: int) -> str:
    """The address of ours that packets to `host` carry. Raises: Unavailable when there is no way there."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, family=socket.AF_INET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])
            return str(probe.getsockname()[0])
    except TimeoutError:
        raise Unavailable(f"cannot reach a manager at {host}:{port}: its name is not resolved") from None
    except OSError as error:
        raise Unavailable(f"cannot reach a manager at {host}:{port}: {error.strerror}") from error


def ensure_free(address: str, ports: tuple[int, ...]) -> None:
    """Raises Unavailable naming the first port that another program listens on."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise Unavailable(
                    f"cannot listen on {address}:{port} ({error.strerror}): free the port and try again"
                ) from error


def _only(local: tuple[LocalAddress, ...]) -> str:
    if len(local) == 1:
        return local[0].address
    if not local:
        raise InvalidArgument("could not find the system's IP address - specify one with --advertise-addr")
    shown = " and ".join(f"{a.address} on interface {a.interface}" for a in local[:2])
    more = f" and {len(local) - 2} more" if len(local) > 2 else ""
    raise InvalidArgument(
        f"could not choose an IP address to advertise since this system has multiple addresses "
        f"({shown}{more}) - specify one with --advertise-addr"
    )
