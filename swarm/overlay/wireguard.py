"""WireGuard on this host: keys, the namespace of its devices, and the programs that make and set them.

In: what the managers say of keys and peers. Out: two devices in a namespace of their own, whose only ways out
they are, and a route to each peer. The VXLAN links of encrypted networks are made in that namespace: so what
they send leaves the host through WireGuard, or not at all, whatever is missing or flushed.

The devices' UDP sockets stay in the host's namespace. Where the kernel has no WireGuard, the program
wireguard-go serves, through a TUN link; it outlives swarmd like a container.

Invariant: private keys are on this host's tmpfs and nowhere else. Every step may be repeated.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import ipaddress
import shutil
from collections.abc import Awaitable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from swarm.base.errors import Temporary
from swarm.base.failpoint import failpoint
from swarm.model.dataplane import DataPlane
from swarm.model.types import Encryption, TunnelKey
from swarm.overlay.encryption import (
    Device,
    device_name,
    generations_to_hold,
    parse_device,
    plan_devices,
    render_device,
    slot_of,
)
from swarm.overlay.netlink import Netlink
from swarm.overlay.netns import Namespaces, disable_ipv6, write_sysctl
from swarm.overlay.plan import WIREGUARD_OVERHEAD
from swarm.overlay.service_tables import Call

_T = TypeVar("_T")
TIMEOUT_S = 10.0
_NAMESPACE = "wg"
_SOCKETS = Path("/var/run/wireguard")
_TUN = Path("/dev/net/tun")
_PROBE = "sww-probe"


class TunnelKeys:
    """This host's private keys by generation: files of a tmpfs, gone with the next boot."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> dict[int, str]:
        found = self._directory.glob("key-*")
        return {int(path.name.removeprefix("key-")): path.read_text() for path in found}

    def hold(self, generations: frozenset[int]) -> None:
        """Make the keys that are missing, and forget those that are not wanted."""
        held = self.load()
        for generation in generations - held.keys():
            private = base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()
            path = self._directory / f"key-{generation}"
            making = path.with_name(f"new-{generation}")
            making.unlink(missing_ok=True)
            making.touch(mode=0o600)
            making.write_text(private)
            failpoint("network.wireguard.key")
            making.rename(path)
        for generation in held.keys() - generations:
            (self._directory / f"key-{generation}").unlink(missing_ok=True)

    def remove(self) -> None:
        for path in self._directory.glob("*-*"):
            path.unlink(missing_ok=True)


class WireGuard:
    def __init__(self, directory: Path, local: str) -> None:
        self._namespaces = Namespaces(directory)
        self._keys = TunnelKeys(directory)
        self._directory = directory
        self._local = local
        self._channel: Netlink | None = None

    def held_keys(self) -> tuple[TunnelKey, ...]:
        """The public halves of this host's keys."""
        return tuple(
            TunnelKey(generation=generation, public_key=_public(private))
            for generation, private in sorted(self._keys.load().items())
        )

    def hold_keys(self, terms: Encryption) -> tuple[TunnelKey, ...]:
        """Make the keys that are missing, and forget those that nobody will use any more."""
        held = self._keys.load()
        wanted = generations_to_hold(terms, held)
        if wanted != held.keys():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._keys.hold(wanted)
        return self.held_keys()

    def channel(self) -> Netlink:
        """A netlink socket in the namespace of the devices, which is made if it is missing."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._namespaces.prepare()
        if self._namespaces.ensure(_NAMESPACE, _prepare_namespace):
            self.close()
        if self._channel is None:
            self._channel = self._namespaces.run(_NAMESPACE, Netlink)
            lo = self._channel.list_links()["lo"].index
            self._channel.add_address(lo, ipaddress.IPv4Interface(f"{self._local}/32"))
            self._channel.set_up(lo)
        return self._channel

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def remove(self) -> None:
        """Devices, programs, keys: everything goes."""
        self.close()
        self._namespaces.delete(_NAMESPACE)
        for slot in (0, 1):
            # The program of a device ends with its socket.
            (_SOCKETS / f"{device_name(slot, self._local)}.sock").unlink(missing_ok=True)
        self._keys.remove()
        with contextlib.suppress(FileNotFoundError):
            self._directory.rmdir()

    async def apply(self, desired: DataPlane, mtu: int, call: Call) -> int:
        """Make devices and routes as desired. Returns how much had to be changed."""
        changed = 0
        devices = await call(lambda: plan_devices(self._keys.load(), desired.peers, self._local))
        for slot, device in devices.items():
            name = device_name(slot, self._local)
            if not await call(partial(self._raise, name)):
                await self._make(name, mtu - WIREGUARD_OVERHEAD, call)
                changed += 1
            changed += await self._set(name, device)
        active = device_name(slot_of(desired.encryption.generation), self._local)
        hosts = {ipaddress.IPv4Network(peer.host) for peer in desired.peers if peer.host != self._local}
        return changed + await call(lambda: _route(self.channel(), active, hosts))

    def _raise(self, name: str) -> bool:
        """Have the device up, if there is one. Returns whether there is."""
        link = self.channel().list_links().get(name)
        if link is not None and not link.is_up:
            self.channel().set_up(link.index)
        return link is not None

    async def _make(self, name: str, mtu: int, call: Call) -> None:
        if not await call(lambda: _add_to_kernel(name)):
            (_SOCKETS / f"{name}.sock").unlink(missing_ok=True)
            await _run_daemon("wireguard-go", name)
            failpoint("network.wireguard.started")
            await _run_wg("wg", "show", name, "dump")  # once it answers, the device may be moved
        await call(lambda: self._take_in(name, mtu))

    def _take_in(self, name: str, mtu: int) -> None:
        """Move the device from the host's namespace into its own."""
        with _host() as host, self._namespaces.open(_NAMESPACE) as descriptor:
            index = host.get_index(name)
            host.set_mtu(index, mtu)
            host.move_link(index, netns=descriptor, name=name)
        channel = self.channel()
        channel.set_up(channel.get_index(name))

    async def _set(self, name: str, device: Device) -> int:
        inside = ("nsenter", f"--net={self._namespaces.path(_NAMESPACE)}", "wg")
        if parse_device(await _run_wg(*inside, "show", name, "dump")) == device:
            return 0
        await _run_wg(*inside, "syncconf", name, "/dev/stdin", given=render_device(device))
        return 1


@contextlib.contextmanager
def _host() -> Iterator[Netlink]:
    host = Netlink()
    try:
        yield host
    finally:
        host.close()


def find_problem() -> str:
    """Why this host cannot encrypt, and the way out; empty if it can."""
    if shutil.which("wg") is None:
        return "wg is not installed: install the wireguard-tools package"
    if _add_to_kernel(_PROBE):
        with _host() as host:
            host.delete_link(_PROBE)
        return ""
    if shutil.which("wireguard-go") is None:
        return "the kernel has no WireGuard, and wireguard-go is not installed: install its package"
    return "" if _TUN.exists() else f"the kernel has no WireGuard, and {_TUN} is missing: load the tun module"


def _add_to_kernel(name: str) -> bool:
    """Whether the kernel made a WireGuard device in this namespace; not if it has none to make."""
    with _host() as host:
        host.delete_link(name)
        try:
            host.add_link(name, "wireguard")
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                return False
            raise
    return True


def _prepare_namespace() -> None:
    for link in ("all", "default"):
        disable_ipv6(link)
        # A peer may still send through the device of the last generation.
        write_sysctl(f"ipv4/conf/{link}/rp_filter", "0")


def _route(channel: Netlink, device: str, hosts: Set[ipaddress.IPv4Network]) -> int:
    """Lead to the hosts through the device, and to no others through any."""
    index = channel.get_index(device)
    if not index:
        return 0
    found = channel.list_host_routes()
    for host in hosts:
        if found.get(host) != index:
            channel.add_route(index, host)
    for host in found.keys() - hosts:
        channel.delete_route(found[host], host)
    return sum(found.get(host) != index for host in hosts) + len(found.keys() - hosts)


def _public(private: str) -> str:
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


async def _run_wg(*argv: str, given: str = "") -> str:
    """Raises: Temporary with the program's last line."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    output, errors = await _ended(argv[0], process, process.communicate(given.encode()))
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Temporary(f"wg failed: {lines[-1]}")
    return output.decode()


async def _run_daemon(*argv: str) -> None:
    """Until it has put itself in the background, where it must not hold any pipe of ours."""
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdin=null, stdout=null, stderr=null)
    if await _ended(argv[0], process, process.wait()) != 0:
        raise Temporary(f"{argv[0]} could not make the device {argv[-1]}")


async def _ended(program: str, process: asyncio.subprocess.Process, end: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await end
    except TimeoutError as error:
        raise Temporary(f"{program} did not finish within {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
