"""How this node is, put together for `swarm system info`; and the repair of its store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from swarm.api.diagnosis import Capability, KeyRotation, RuntimeReport, StoreMember, StoreReport, SystemReport
from swarm.base.clock import Clock
from swarm.base.errors import NotManager, SwarmError, Unavailable
from swarm.manager.ca.certificates import is_manager
from swarm.manager.ca.rotation import ends_soon, list_blocking
from swarm.manager.manager import Manager
from swarm.manager.upkeep import MemberReport
from swarm.model.objects import Cluster, Node
from swarm.model.types import NodeDescription, NodeRole
from swarm.model.view import ClusterView
from swarm.node.member import Member
from swarm.proto.identity import Identity
from swarm.store.etcd_process import check_version, support_of
from swarm.store.external import ExternalEtcd, look_at
from swarm.store.health import Health
from swarm.store.members import MemberStatus
from swarm.worker.runtime.capabilities import detect_capabilities
from swarm.worker.runtime.host import RuntimeChoice

REPAIR_TIMEOUT_S = 90.0

UNREAD_KEY = (
    "WARNING: nobody has read the swarm's new unlock key yet: until then managers open as before; read it "
    "with: swarm unlock-key"
)
REPAIRING = (
    "the store of this manager is being rebuilt and has not caught up in time; that continues in the "
    "background: see `swarm system info`"
)


class Diagnosis:
    """The API's `System`."""

    def __init__(
        self,
        choice: RuntimeChoice,
        member: Callable[[], Member | None],
        identity: Callable[[], Identity | None],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._choice = choice
        self._member = member
        self._identity = identity

    async def report(self) -> SystemReport:
        identity, member = self._identity(), self._member()
        is_manager = member is not None and member.store_health is not None
        return SystemReport(
            store=await _store(member) if member is not None and is_manager else None,
            runtime=RuntimeReport(
                name=self._choice.name,
                path=str(self._choice.program),
                reason=self._choice.reason,
                cgroup_mode=self._choice.cgroup_mode,
            ),
            capabilities=tuple(
                Capability(name=c.name, is_present=c.is_present, note=c.note)
                for c in await detect_capabilities()
            ),
            certificate_until=identity.subject.not_after if identity else None,
        )

    def warnings(self) -> tuple[str, ...]:
        member = self._member()
        health = member.store_health if member is not None else None
        found = []
        if health is not None and health.message:
            found.append(f"WARNING: the swarm's store is {health.state}: {health.message}")
        if member is not None and member.manager is not None:
            others = (node for node in member.manager.view.list(Node) if node.id != self._own_id())
            found += [_troubled(node) for node in others if is_manager(node) and node.description.store_state]
            found += [_blocks_rotation(node) for node in list_blocking(member.manager.view)]
            if (end := ends_soon(member.manager.view, self._clock.now())) is not None:
                found.append(_ends(end))
            found += [UNREAD_KEY for cluster in member.manager.view.list(Cluster) if cluster.next_unlock_key]
        return tuple(found)

    async def repair(self, tell: Callable[[str], None]) -> None:
        member = self._member()
        if member is None or member.membership.role is not NodeRole.MANAGER:
            raise NotManager(in_cluster=member is not None)
        try:
            async with asyncio.timeout(REPAIR_TIMEOUT_S):
                await member.repair(tell)
        except TimeoutError:
            raise Unavailable(REPAIRING) from None

    async def rotate_data_key(self) -> None:
        await self._manager().data_key.request()

    def key_rotation(self) -> KeyRotation:
        progress = self._manager().data_key.progress
        return KeyRotation(
            state="distributing" if progress.keys.coming else "resealing" if progress.keys.going else "none",
            key=progress.keys.sealing,
            waits_for=progress.waits_for,
            left=progress.left,
            total=progress.total,
        )

    def _own_id(self) -> str:
        identity = self._identity()
        return identity.subject.node_id if identity is not None else ""

    def _manager(self) -> Manager:
        """Raises: NotManager, Unavailable."""
        member = self._member()
        if member is None or member.membership.role is not NodeRole.MANAGER:
            raise NotManager(in_cluster=member is not None)
        if member.running_manager is not None:
            member.running_manager.keeper.refuse_damaged()
        if member.manager is None:
            raise Unavailable("this manager does not serve yet; try again")
        return member.manager


def _troubled(node: Node) -> str:
    said = node.description
    return (
        f"WARNING: manager {said.hostname or node.id} says that its store is {said.store_state}: "
        f"{said.store_problem}"
    )


def _ends(end: datetime) -> str:
    return (
        f"WARNING: the swarm's root certificate ends at {end:%Y-%m-%d %H:%M:%S} UTC, and the swarm with it: "
        "replace it with: swarm ca --rotate"
    )


def _blocks_rotation(node: Node) -> str:
    return (
        f"WARNING: the rotation of the root CA waits for {node.description.hostname or node.id}, which is "
        f"down: bring it back, or remove it with: swarm node rm {node.id}"
    )


async def _store(member: Member) -> StoreReport:
    health = member.store_health
    assert health is not None, "the caller has looked"
    if member.external_store is not None:
        return await _external(member.external_store, health)
    manager = member.running_manager
    version, support = "", "not found"
    try:
        version = await check_version()
        support = support_of(version)
    except SwarmError as error:
        support = str(error)
    return StoreReport(
        state=health.state,
        message=health.message,
        is_external=False,
        version=version,
        support=support,
        quota_bytes=member.etcd_quota_bytes,
        members=await _members(manager) if manager is not None else (),
    )


async def _external(external: ExternalEtcd, health: Health) -> StoreReport:
    found = await look_at(external)
    version = next((status.version for _, status in found if status is not None), "")
    return StoreReport(
        state=health.state,
        message=health.message,
        is_external=True,
        version=version,
        support=support_of(version) if version else "nobody answers",
        quota_bytes=0,
        members=tuple(_endpoint(endpoint, status) for endpoint, status in found),
    )


def _endpoint(endpoint: str, status: MemberStatus | None) -> StoreMember:
    is_leader = status is not None and status.leader == status.id
    return StoreMember(
        node_id="",
        hostname="",
        address=endpoint.removeprefix("https://"),
        role="leader" if is_leader else "voter",
        is_reachable=status is not None,
        state="",
        message="",
        version=status.version if status else "",
        size_bytes=status.size_bytes if status else 0,
        used_bytes=status.used_bytes if status else 0,
    )


async def _members(manager: Manager) -> tuple[StoreMember, ...]:
    try:
        reports = await manager.keeper.report()
    except SwarmError:
        return ()
    return tuple(_present(report, manager.view) for report in reports)


def _present(report: MemberReport, view: ClusterView) -> StoreMember:
    node = next((n for n in view.list(Node) if n.id == report.node_id), None)
    status = report.status
    told = node.description if node is not None else NodeDescription()
    role = "learner" if report.is_learner else "leader" if status is not None and status.leads else "voter"
    return StoreMember(
        node_id=report.node_id,
        hostname=told.hostname,
        address=report.address.removeprefix("https://"),
        role=role,
        is_reachable=status is not None,
        state=status.state if status else told.store_state,
        message=status.message if status else told.store_problem,
        version=status.version if status else "",
        size_bytes=status.size_bytes if status else 0,
        used_bytes=status.used_bytes if status else 0,
    )
