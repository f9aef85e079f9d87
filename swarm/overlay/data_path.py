"""The host's part of the network, as the worker's agent uses it.

In: the desired `DataPlane` as a manager pushes it; tasks that come and go. Out: namespaces, links, tunnels
and firewall rules in the kernel, in the network namespace of this process. No packet passes through here.

Invariant: everything may be repeated, and works from what the kernel holds and not from memory; so it goes on
after kill -9 at any step, and `verify` mends what others break. What runs is never disturbed by a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from swarm.base.errors import FailedPrecondition, Fatal, Temporary
from swarm.base.log import Logger, get_logger
from swarm.model.dataplane import DataPlane, TaskNetwork
from swarm.model.types import PortConfig, TunnelKey
from swarm.overlay import conntrack, nft
from swarm.overlay.balance import (
    TABLE,
    Rules,
    dropped_targets,
    opened_ports,
    plan_rules,
    render_change,
    render_table,
    shape_of,
)
from swarm.overlay.carried import HostAbilities, refused_networks
from swarm.overlay.guard_tables import GuardTables
from swarm.overlay.kernel import ETHERNET_MTU, Kernel
from swarm.overlay.macvlan_plan import Settings
from swarm.overlay.name_server import NameServer
from swarm.overlay.names import RESOLVER, plan_names, render_resolver
from swarm.overlay.netns import has_ipv6
from swarm.overlay.plan import planned_part
from swarm.overlay.proxy import Proxy
from swarm.overlay.proxy_config import render_proxy
from swarm.overlay.records import TaskRecord
from swarm.overlay.relay_server import RelayServer
from swarm.overlay.relayed import plan_relayed
from swarm.overlay.service_tables import ServiceTables
from swarm.overlay.wireguard import find_problem

_T = TypeVar("_T")
CALL_TIMEOUT_S = 60.0
"""For one call into the kernel's thread; each netlink request in it has a much shorter one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLink:
    """What `attach` gave a task."""

    netns: Path
    """Where the runtime finds the network namespace."""
    gateway_address: str
    """The host's address on the gateway network, as the task sees it."""
    address: str
    """The task's own address there: where its host ports lead."""
    resolver: str = ""
    """Who answers the task's questions for names; empty when it is on no network with names."""
    host_ports: tuple[PortConfig, ...] = field(default_factory=tuple)
    """With the numbers that were chosen for ports that asked for any."""


class DataPath:
    """One per process and network namespace. Calls may overlap; they are carried out one after the other."""

    def __init__(
        self,
        *,
        local_address: str,
        run_dir: Path = Path("/run/swarm"),
        gateway_subnet: str = "",
        settings: Settings = lambda _: None,
        log: Logger | None = None,
    ) -> None:
        """`settings` are this node's config-only networks, by name."""
        self._kernel = Kernel(local_address, run_dir, gateway_subnet, settings)
        self._log = log or get_logger("overlay")
        self._thread: ThreadPoolExecutor | None = None
        self._services = ServiceTables(self._kernel.namespaces, self._call, self._log)
        self._guards = GuardTables(self._kernel.namespaces, self._call, lambda: self._kernel.gateway_address)
        self._names = NameServer(run_dir / "names.sock", self._log)
        self._proxy = Proxy(run_dir / "proxy", self._log)
        self._relay = RelayServer(run_dir / "relay.sock", self._log)
        self._lock = asyncio.Lock()
        self._desired: DataPlane | None = None
        self._refused: dict[str, str] = {}
        """Networks that this host cannot carry, and why."""
        self._planned: object = None
        self._applied: Rules | None = None
        self._generation = -1
        self.tunnel_keys: tuple[TunnelKey, ...] = ()
        """Of this host, for the other hosts to know."""
        self.encryption_problem = ""
        """Why this host cannot carry encrypted networks; empty if it can."""
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Take over what is there. The firewall stays as it is until the first `apply`.

        Raises: FailedPrecondition when the host lacks something that only its owner can give.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlay")
        async with self._lock:
            await self._call(self._kernel.start)
            await self._services.prepare()
            self.encryption_problem = await self._call(find_problem)
            self.tunnel_keys = await self._call(self._kernel.wireguard.held_keys)
            for chain in await nft.list_dropping_forward_chains():
                self._log.warning(
                    "forwarding dropped by another firewall",
                    chain=chain,
                    hint="let it accept what comes from or goes to swarm-gw and swl*",
                )

    async def apply(self, desired: DataPlane) -> None:
        """Make networks and published ports as desired, by the difference only."""
        async with self._lock:
            self._desired = desired = self._services.possible(await self._carried(desired))
            await self._encrypt(desired)
            await self._apply_networks(desired)
            await self._serve_proxied(desired)
            await self._apply_rules(desired)
            await self._services.apply(desired)
            await self._guards.admit(self._kernel.records.values())
            await self._tell_names()
            await self._tell_relay()
        self._news.set()
        self._news = asyncio.Event()

    async def without_backends(self, addresses: Collection[str]) -> None:
        """Wait until neither port nor virtual address of this host leads to any of `addresses`."""
        while self._desired and not _targets(self._desired).isdisjoint(addresses):
            await self._news.wait()

    async def attach(self, task: TaskNetwork) -> TaskLink:
        """Make the task's network namespace and its links; again gives the same.

        Raises: Temporary while a network is not on this host yet, or a host port is another task's; Fatal for
        a network that this host cannot carry, for lack of encryption, of IPv6 or of a macvlan's link.
        """
        async with self._lock:
            for attachment in task.attachments:
                if why := self._refused.get(attachment.network_id):
                    raise Fatal(why)
            record = await self._call(lambda: self._kernel.attach(task))
            await self._guards.admit(self._kernel.records.values())
            # Rules of a former process stand until it is known which ports are published.
            is_adopted = self._applied is None and self._desired is None and await nft.read_shape()
            if not is_adopted and (self._applied is None or record.host_ports):
                await self._apply_rules(self._desired or DataPlane())
                await self._tell_relay()
            if record.names_on:
                await self._serve_names(record)
        return self._link_of(record)

    async def detach(self, task_id: str) -> None:
        """Take the task's links and namespace away. Call it when the task's processes have ended."""
        async with self._lock:
            record = await self._call(lambda: self._kernel.detach(task_id))
            if record and record.host_ports and self._applied is not None:
                await self._apply_rules(self._desired or DataPlane())
                await self._tell_relay()
            if record and record.names_on:
                await self._tell_names()

    def list_tasks(self) -> tuple[str, ...]:
        """Every task that is attached, also by a former process: detach those that should not be."""
        return tuple(self._kernel.records)

    async def verify(self) -> int:
        """Compare with the kernel and mend. Cheap; call it every few seconds. Returns how much was mended."""
        async with self._lock:
            if self._desired is None:
                return 0
            desired = self._desired
            mended = await self._encrypt(desired)
            mended += await self._call(lambda: self._kernel.mend(desired))
            mended += await self._serve_proxied(desired)
            mended += await self._apply_rules(desired)
            mended += await self._services.apply(desired)
            mended += await self._guards.verify(self._kernel.records.values())
            mended += await self._tell_names()
            mended += await self._tell_relay()
            if mended:
                self._log.warning("network mended", operations=mended)
            return mended

    async def close(self, *, remove: bool = False) -> None:
        """Let go. With `remove`, at `swarm leave`: take everything out of the kernel."""
        if self._thread is None:
            return
        async with self._lock:
            if remove:
                await self._call(self._kernel.remove)
                await nft.apply_rules(f"add table {TABLE}\ndelete table {TABLE}\n")
                await self._guards.remove()
                self._desired = self._applied = self._planned = None
                await self._names.end()
                self._proxy.remove()
                await self._relay.end()
            self._names.close()
            self._relay.close()
            await self._call(self._kernel.close)
            self._thread.shutdown(wait=True)
            self._thread = None

    async def _carried(self, desired: DataPlane) -> DataPlane:
        """Without what this host cannot carry: nothing of those networks is made here."""
        host = HostAbilities(
            encryption_problem=self.encryption_problem,
            has_ipv6=has_ipv6(),
            wire_mtu=await self._call(lambda: self._kernel.wire_mtu)
            if any(network.ipv6_subnet for network in desired.networks)
            else ETHERNET_MTU,
        )
        self._refused = refused_networks(desired.networks, host)
        return replace(desired, networks=tuple(n for n in desired.networks if n.id not in self._refused))

    async def _encrypt(self, desired: DataPlane) -> int:
        """Keys for as long as any network of the cluster is encrypted, devices while one is on this host."""
        if self.encryption_problem:
            return 0
        wireguard = self._kernel.wireguard
        self.tunnel_keys = await self._call(lambda: wireguard.hold_keys(desired.encryption))
        if not any(network.encrypted for network in desired.networks):
            return 0
        try:
            mtu = await self._call(lambda: self._kernel.wire_mtu)
            return await wireguard.apply(desired, mtu, self._call)
        except (Temporary, OSError) as error:  # nothing of these networks leaves the host until it works
            self._log.warning("tunnels not encrypted yet", error=str(error))
            return 0

    async def _apply_networks(self, desired: DataPlane) -> None:
        """Unless they were so already: looking costs more than most changes. `verify` does look."""
        part = planned_part(desired)
        if part == self._planned:
            return
        self._planned = None  # until the outcome is known
        changed = await self._call(lambda: self._kernel.apply_networks(desired))
        self._planned = part
        if changed:
            self._log.info("networks applied", operations=len(changed))

    async def _serve_proxied(self, desired: DataPlane) -> int:
        """Before the rules lead there: a task that left gets no new connection when they are in force."""
        config = render_proxy(desired, str(self._kernel.subnet), self._proxy.directory)
        return await self._proxy.serve(config)

    async def _apply_rules(self, desired: DataPlane) -> int:
        """Bring the table to what it should be; whole when somebody else touched it. Returns 1 if it did."""
        records, subnet = tuple(self._kernel.records.values()), str(self._kernel.subnet)
        rules = plan_rules(desired, records, subnet, has_proxy=self._proxy.is_serving)
        former = self._applied
        is_whole = former is None or not await self._is_untouched(former)
        text = render_table(rules) if former is None or is_whole else render_change(former, rules)
        if not text:
            return 0
        self._applied = None  # until the outcome is known
        await nft.apply_rules(text)
        self._generation = nft.read_generation()
        self._applied = rules
        if former:
            await self._forget_flows(former, rules)
        return 1

    async def _is_untouched(self, applied: Rules) -> bool:
        """The generation moves with anybody's change to any table: only then is ours read."""
        generation = nft.read_generation()
        if generation == self._generation:
            return True
        if await nft.read_shape() != shape_of(applied):
            return False
        self._generation = generation
        return True

    async def _forget_flows(self, former: Rules, rules: Rules) -> None:
        gone = dropped_targets(former, rules)
        opened = opened_ports(former, rules)

        def forget() -> int:
            flows = sum(conntrack.forget_target(protocol, address) for protocol, address in gone)
            return flows + sum(conntrack.forget_untranslated(key.protocol, key.port) for key in opened)

        if gone or opened:
            try:
                await self._call(forget)
            except OSError as error:  # the flows end by themselves, only later
                self._log.warning("flows not forgotten", error=str(error))

    async def _serve_names(self, record: TaskRecord) -> None:
        """Raises: Temporary while the task's questions would not be answered."""
        await nft.apply_rules(render_resolver(), self._kernel.namespaces.path(record.task_id))
        await self._tell_names()
        if self._desired is not None and not self._names.serves(record.task_id):
            raise Temporary("the name server of this host does not serve the task yet")

    async def _tell_names(self) -> int:
        """Nothing before it is known what to tell: a former process's server goes on until then."""
        if self._desired is None:
            return 0
        records = self._kernel.records.values()
        try:
            return await self._names.tell(plan_names(self._desired, records, self._kernel.namespaces.path))
        except Temporary as error:  # told again by the next change, or by `verify`
            self._log.warning("name server not reached", error=str(error))
            return 0

    async def _tell_relay(self) -> int:
        """The same ports for clients on IPv6: what the firewall's table leads to, the relay does."""
        rules = self._applied
        if rules is None:
            return 0
        ports = self._desired.ports if self._desired else ()
        keeps = bool(rules.published or rules.host_ports)
        try:
            return await self._relay.tell(plan_relayed(rules, ports), keeps=keeps)
        except Temporary as error:  # told again by the next change, or by `verify`
            self._log.warning("relay for IPv6 not reached", error=str(error))
            return 0

    def _link_of(self, record: TaskRecord) -> TaskLink:
        return TaskLink(
            netns=self._kernel.namespaces.path(record.task_id),
            gateway_address=self._kernel.gateway_address,
            address=record.gateway_address,
            resolver=RESOLVER if record.names_on else "",
            host_ports=record.host_ports,
        )

    async def _call(self, call: Callable[[], _T]) -> _T:
        """`call` in the one thread that speaks to the kernel, so that calls never overlap."""
        if self._thread is None:
            raise FailedPrecondition("the data path is not started")
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _targets(desired: DataPlane) -> set[str]:
    """Every address that a published port or a virtual address leads to."""
    found = {backend.address for port in desired.ports for backend in port.backends}
    return found | {backend.address for service in desired.services for backend in service.backends}
