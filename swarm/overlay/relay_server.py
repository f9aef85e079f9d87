"""The relay's process, from swarmd's side: started with the first published port, ended with the last.

In: the ports of `swarm.overlay.relayed`. Out: the same ports on this host's IPv6 addresses.

Invariant: what was not confirmed counts as not told. Ports that could not be opened are tried again, and
told of once.
"""

from __future__ import annotations

from pathlib import Path

from swarm.base.errors import Temporary
from swarm.base.log import Logger
from swarm.overlay.relayed import Ports
from swarm.overlay.side_process import SideProcess

_IPV6 = Path("/proc/net/if_inet6")


class RelayServer:
    def __init__(self, path: Path, log: Logger) -> None:
        self._process = SideProcess("swarm.overlay.relay", path)
        self._log = log
        self._told: Ports = {}
        self._failed: dict[str, str] = {}

    async def tell(self, ports: Ports, *, keeps: bool) -> int:
        """Make it serve exactly `ports`; without any it ends unless it `keeps`. Returns 1 if it was told.

        Raises: Temporary when it cannot be started or does not answer.
        """
        if not _IPV6.exists():
            return 0
        if not ports and not keeps:
            await self.end()
            return 0
        try:
            return await self._tell(ports)
        except OSError as error:
            await self._let_go()
            raise Temporary(f"the relay for IPv6 of this host does not answer: {error}") from error

    async def end(self) -> None:
        """End it, also one that a former swarmd has left, and with it the connections that it carries."""
        await self._process.end()
        self._told, self._failed = {}, {}

    def close(self) -> None:
        """Let go of it: it goes on."""
        self._process.close()
        self._told = {}

    async def _tell(self, ports: Ports) -> int:
        if self._process.is_lost:
            self._log.warning("relay for IPv6 lost")
            await self._let_go()
        is_new = not self._process.is_reached or self._told != ports
        if not is_new and not self._failed:
            return 0
        failed = (await self._process.ask({"ports": ports}))["failed"]
        self._told = ports
        for port in failed.keys() - self._failed.keys():
            self._log.warning("port not served over IPv6", port=port, error=failed[port])
        self._failed = failed
        return int(is_new)

    async def _let_go(self) -> None:
        await self._process.let_go()
        self._told = {}
