"""The TCP connections of this host's etcd to other members. Owns the program `ss`.

In: a member's address. Out: nothing; the kernel ends the connections. Best effort: a kernel without
CONFIG_INET_DIAG_DESTROY, or a host without `ss`, keeps them until they end by themselves.
"""

from __future__ import annotations

import asyncio

from swarm.base.log import get_logger
from swarm.model.defaults import ETCD_PEER_PORT

TIMEOUT_S = 2.0

log = get_logger("members")


async def end_connections(address: str, port: int = ETCD_PEER_PORT) -> None:
    """Whatever waits to be sent to `address` is lost; only for a host that is gone."""
    own_or_theirs = ("(", "sport", "=", f":{port}", "or", "dport", "=", f":{port}", ")")
    try:
        process = await asyncio.create_subprocess_exec(
            *("ss", "--kill", "--tcp", "--numeric", "--no-header", "dst", address, *own_or_theirs),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        log.info("member.connections.kept", address=address, reason=str(error))
        return
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await process.wait()
    except TimeoutError:
        status = None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log.info("member.connections.ended", address=address, status=status)
