"""The firewall tables of the overlays' namespaces, in which virtual addresses lead to tasks.

In: the desired services. Out: one transaction per network that differs, by the difference only.

Invariant: what is thought to be in a table is taken for true only while nobody else has changed it; otherwise
it is read, and the table made whole again.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarm.base.log import Logger
from swarm.model.dataplane import DataPlane, NetworkService
from swarm.overlay import conntrack, nft
from swarm.overlay.netns import Namespaces
from swarm.overlay.networks import PREFIX, translates_bridged
from swarm.overlay.virtual import (
    VIRTUAL_TABLE,
    VirtualRules,
    change_virtual,
    left_targets,
    opened_addresses,
    plan_virtual,
    render_virtual,
    shape_of_virtual,
    without_virtual,
)

_T = TypeVar("_T")
_MODPROBE_TIMEOUT_S = 10.0


class Call(Protocol):
    """Carries a blocking call out in the one thread that speaks to the kernel."""

    def __call__(self, call: Callable[[], _T], /) -> Awaitable[_T]: ...


@dataclass(frozen=True, slots=True)
class _Applied:
    rules: VirtualRules
    namespace: int
    """Which one: another may have taken the place."""
    generation: int
    """The namespace's count of firewall transactions after ours."""


class ServiceTables:
    def __init__(self, namespaces: Namespaces, call: Call, log: Logger) -> None:
        self._namespaces = namespaces
        self._call = call
        self._log = log
        self._applied: dict[str, _Applied] = {}

    async def prepare(self) -> None:
        """Let the firewall translate what is bridged, if this kernel can."""
        if not translates_bridged():
            await self._call(_load_bridge_filter)
        if not translates_bridged():
            self._log.warning(
                "no virtual addresses on this host: names give the tasks' own addresses",
                hint="load the kernel module br_netfilter",
            )

    def possible(self, desired: DataPlane) -> DataPlane:
        """`desired`, without virtual addresses where the kernel cannot have them."""
        return desired if translates_bridged() else without_virtual(desired)

    async def apply(self, desired: DataPlane) -> int:
        """Make the tables as desired. Returns how many had to be changed."""
        subnets = {network.id: network.ipv6_subnet for network in desired.networks}
        services: dict[str, list[NetworkService]] = {network_id: [] for network_id in subnets}
        for service in desired.services:
            services.get(service.network_id, []).append(service)
        for network_id in self._applied.keys() - services.keys():
            del self._applied[network_id]
        changed = 0
        for network_id, found in services.items():
            if self._namespaces.exists(PREFIX + network_id):
                changed += await self._apply_one(network_id, plan_virtual(found, subnets[network_id]))
        return changed

    async def _apply_one(self, network_id: str, rules: VirtualRules) -> int:
        former = self._applied.get(network_id)
        if former is None and not rules.targets:
            return 0  # it has no table, as long as nobody needs one
        netns = self._namespaces.path(PREFIX + network_id)
        if former and await self._is_untouched(network_id, former):
            text = change_virtual(former.rules, rules)
        else:
            text = render_virtual(rules)
        if not text:
            return 0
        self._applied.pop(network_id, None)  # until the outcome is known
        await nft.apply_rules(text, netns)
        inode, generation = await self._read_mark(network_id)
        self._applied[network_id] = _Applied(rules, inode, generation)
        if former:
            await self._forget_flows(network_id, former.rules, rules)
        return 1

    async def _is_untouched(self, network_id: str, former: _Applied) -> bool:
        inode, generation = await self._read_mark(network_id)
        if inode != former.namespace:
            return False
        if generation == former.generation:
            return True
        shape = await nft.read_shape(self._namespaces.path(PREFIX + network_id), VIRTUAL_TABLE)
        if shape != shape_of_virtual(former.rules):
            return False
        self._applied[network_id] = _Applied(former.rules, inode, generation)
        return True

    async def _read_mark(self, network_id: str) -> tuple[int, int]:
        name = PREFIX + network_id

        def read() -> tuple[int, int]:
            inode = self._namespaces.path(name).stat().st_ino
            return inode, self._namespaces.run(name, nft.read_generation)

        return await self._call(read)

    async def _forget_flows(self, network_id: str, former: VirtualRules, rules: VirtualRules) -> None:
        gone, opened = left_targets(former, rules), opened_addresses(former, rules)
        if not gone and not opened:
            return

        def forget() -> int:
            return conntrack.forget_virtual(gone, opened)

        try:
            await self._call(lambda: self._namespaces.run(PREFIX + network_id, forget))
        except OSError as error:  # the flows end by themselves, only later
            self._log.warning("flows not forgotten", network=network_id, error=str(error))


def _load_bridge_filter() -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["modprobe", "br_netfilter"], capture_output=True, check=False, timeout=_MODPROBE_TIMEOUT_S
        )
