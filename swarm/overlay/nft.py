"""The `nft` program: the only way in which this project changes a firewall.

In: text for one transaction. Out: applied as a whole or not at all. Reads back JSON, never text.

Invariant: a killed or failed `nft` leaves the table as it was: the kernel applies a transaction atomically.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from pathlib import Path
from typing import Any

from swarm.base.errors import Temporary
from swarm.base.failpoint import failpoint
from swarm.overlay.balance import TABLE, Shape

TIMEOUT_S = 10.0
_NFT_GETGEN = (10 << 8) | 16


async def apply_rules(text: str, netns: Path | None = None) -> None:
    """Apply one transaction, in the host's namespace or another.

    Raises: Temporary with nft's first line when the kernel refuses it.
    """
    failpoint("network.rules.before")
    await _run_nft("-f", "-", netns=netns, given=text.encode())
    failpoint("network.rules.after")


async def read_shape(netns: Path | None = None, table: str = TABLE) -> Shape | None:
    """What one of our tables looks like in the kernel; None when it is not there."""
    family, name = table.split()
    try:
        listed = json.loads(await _run_nft("-j", "list", "table", family, name, netns=netns))["nftables"]
    except Temporary:
        return None
    chains: dict[str, int] = {}
    sets: dict[str, int] = {}
    for entry in listed:
        if "chain" in entry:
            chains.setdefault(entry["chain"]["name"], 0)
        elif "rule" in entry:
            chain = entry["rule"]["chain"]
            chains[chain] = chains.get(chain, 0) + 1
        elif "map" in entry or "set" in entry:
            found = entry.get("map") or entry["set"]
            sets[found["name"]] = len(found.get("elem", ()))
    return Shape(chains=chains, sets=sets)


async def list_dropping_forward_chains() -> list[str]:
    """Other tables' forward chains whose policy is drop: ours cannot overrule them."""
    listed: list[Any] = json.loads(await _run_nft("-j", "list", "chains"))["nftables"]
    found = []
    for entry in listed:
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found


def read_generation() -> int:
    """The kernel's count of firewall transactions in this namespace: unchanged, nobody touched any table."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as channel:
        channel.settimeout(TIMEOUT_S)
        channel.send(struct.pack("=IHHIIBBH", 20, _NFT_GETGEN, 1, 1, 0, 0, 0, 0))
        reply = channel.recv(4096)
    # netlink header 16, nfgenmsg 4, attribute header 4, then the number in network order
    return int(struct.unpack_from("!I", reply, 24)[0])


async def _run_nft(*arguments: str, netns: Path | None = None, given: bytes = b"") -> bytes:
    inside = ("nsenter", f"--net={netns}") if netns else ()
    try:
        process = await asyncio.create_subprocess_exec(
            *inside,
            "nft",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Temporary("nft is not installed: install the nftables package") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, errors = await process.communicate(given)
    except TimeoutError as error:
        raise Temporary(f"nft did not finish within {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Temporary(f"nft refused the rules: {lines[0]}")
    return output
