"""What this host can do for networks. The kernel is tried in a network namespace that is gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

TIMEOUT_S = 5.0

_TRIES = {
    "vxlan": ("ip", "link", "add", "try0", "type", "vxlan", "id", "1", "dstport", "4789"),
    "wireguard": ("ip", "link", "add", "try0", "type", "wireguard"),
    "nftables": ("nft", "add", "table", "ip", "try"),
}

_WAYS = {"wireguard": "install wireguard-go", "haproxy": "install haproxy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCapability:
    name: str
    is_present: bool
    note: str


async def detect_capabilities() -> tuple[NetworkCapability, ...]:
    """vxlan, wireguard, nftables and haproxy."""
    names = (*_TRIES, "haproxy")
    found = await asyncio.gather(*(_works(argv) for argv in _TRIES.values()))
    found.append(shutil.which("haproxy") is not None)
    return tuple(
        NetworkCapability(name=name, is_present=present, note=note_of(name, present, _has_wireguard_go()))
        for name, present in zip(names, found, strict=True)
    )


def note_of(name: str, present: bool, has_wireguard_go: bool) -> str:
    """What it is for, or what stands in for it. Pure."""
    uses = {
        "vxlan": "overlay networks",
        "wireguard": "encrypted overlay networks",
        "nftables": "virtual addresses and published ports",
        "haproxy": "published ports with PROXY protocol",
    }
    if present:
        return uses[name]
    if name == "wireguard" and has_wireguard_go:
        return "wireguard-go stands in for it"
    way = _WAYS.get(name, "another kernel is needed")
    return f"{uses[name]} are not possible here: {way}"


def _has_wireguard_go() -> bool:
    return shutil.which("wireguard-go") is not None


async def _works(argv: tuple[str, ...]) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(
            "unshare", "--net", *argv,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        return False
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
