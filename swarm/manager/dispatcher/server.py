"""The dispatcher's RPCs: an agent opens a session, beats, gets its assignments and reports back.

A report counts only from the task's own node in its current session, and only if it raises the task's state.
Source: SwarmKit manager/dispatcher/dispatcher.go.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from swarm.base.clock import Clock
from swarm.base.errors import (
    FailedPrecondition,
    InvalidArgument,
    NodeRemoved,
    NoQuorum,
    NotFound,
    OutOfSequence,
    Unavailable,
)
from swarm.base.failpoint import failpoint
from swarm.base.ids import IdSource, NodeID
from swarm.base.log import get_logger
from swarm.manager.backup import RESTORED, RESTORED_GRACE_S
from swarm.manager.dispatcher.hub import AssignmentHub
from swarm.manager.dispatcher.messages import accept, assignments_messages, find_cluster, welcome
from swarm.manager.dispatcher.sessions import Sessions
from swarm.model.defaults import HEARTBEATS_MISSED
from swarm.model.exclusive import KNOWN_WITHIN_S
from swarm.model.objects import (
    NO_NODE,
    Cluster,
    Node,
    StoredObject,
    TaskStatus,
)
from swarm.model.plan import Update
from swarm.model.specs import ClusterSpec
from swarm.model.types import NodeDescription, NodeState
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb
from swarm.proto.gen import dispatcher_pb2_grpc
from swarm.proto.rpc import Context, caller
from swarm.store import keys
from swarm.store.store import Store

EXPIRE_EVERY_S = 0.25
DEAF_AFTER_S = 3.0
STANDSTILL_S = 1.0
"""Longer between two looks: this process was stopped, or starved."""
WRITE_TRIES = 10
RACE_S = 0.01
"""Before a write that lost a race is tried again: time for the mirror to show who won."""


log = get_logger("dispatcher")


class Knowledge(Protocol):
    """What this manager knows of its own view."""

    @property
    def known_s_ago(self) -> float:
        """How old what the store shows here can be."""
        ...

    @property
    def is_trustworthy(self) -> bool:
        """False when its data are known to be damaged."""
        ...


class Dispatcher(dispatcher_pb2_grpc.DispatcherServicer):
    """Serves the sessions of the nodes that have chosen this manager, `me`."""

    def __init__(
        self, store: Store, clock: Clock, new_id: IdSource, me: NodeID, knowledge: Knowledge
    ) -> None:
        self._knowledge = knowledge
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._me = me
        self._sessions = Sessions(HEARTBEATS_MISSED * ClusterSpec().heartbeat_period.total_seconds())
        self._hub = AssignmentHub(store)
        self._news: dict[NodeID, asyncio.Event] = {}
        self._group: asyncio.TaskGroup
        self._cut_off = False

    async def run(self) -> None:
        """Expire silent nodes and feed the streams, until cancelled."""
        self._expect_nodes()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._hub.run())
            group.create_task(self._follow_nodes())
            looked = self._clock.monotonic()
            while True:
                await asyncio.sleep(EXPIRE_EVERY_S)
                standstill_s = self._clock.monotonic() - looked
                looked += standstill_s
                if standstill_s > STANDSTILL_S:
                    log.warning("dispatcher.stood.still", seconds=round(standstill_s, 1))
                    self._sessions.excuse(standstill_s, looked)
                if self._is_cut_off():
                    continue
                self._sessions.set_silence(HEARTBEATS_MISSED * self._spec().heartbeat_period.total_seconds())
                for node_id in self._sessions.expire(looked):
                    group.create_task(self._mark_down(node_id))
                for node_id in self._sessions.mark_late(looked):
                    group.create_task(self._mark_unknown(node_id))
                await self._correct()

    async def Session(self, request: pb.SessionRequest, context: Context) -> AsyncIterator[pb.SessionMessage]:
        node_id = caller().node_id
        session_id = self._new_id()
        news = self._begin(node_id)
        self._sessions.open(node_id, session_id, self._clock.monotonic())
        try:
            description = _checked(codec.decode(NodeDescription, request.description))
            await self._mark_ready(node_id, description, _peer_address(context))
            self._sessions.book(node_id, session_id)
            log.info("session.opened", node_id=node_id)
            told = welcome(self._store.view, self._me, node_id, session_id)
            failpoint("dispatcher.session.welcome")
            yield told
            while self._sessions.is_current(node_id, session_id):
                await news.wait()
                news.clear()
                self._check_store()
                self._check_member(node_id)
                message = welcome(self._store.view, self._me, node_id, session_id)
                if message != told:
                    yield message
                    told = message
            raise FailedPrecondition("a newer session of this node has taken over")
        finally:
            if self._news.get(node_id) is news:
                del self._news[node_id]
            if self._sessions.stream_ended(node_id, session_id):
                self._spawn(self._mark_unknown(node_id))
            log.info("session.ended", node_id=node_id)

    async def EndSession(self, request: pb.EndSessionRequest, context: Context) -> pb.EndSessionResponse:
        node_id = caller().node_id
        self._check_session(node_id, request.session_id)
        self._end(node_id)
        await self._mark_away(node_id, comes_back=request.comes_back)
        return pb.EndSessionResponse()

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        self._sessions.beat(caller().node_id, request.session_id, self._clock.monotonic())
        response = pb.HeartbeatResponse(gives_word=self._gives_word(caller().node_id))
        response.period.FromTimedelta(self._spec().heartbeat_period)
        failpoint("dispatcher.heartbeat.reply")
        return response

    async def Assignments(
        self, request: pb.AssignmentsRequest, context: Context
    ) -> AsyncIterator[pb.AssignmentsMessage]:
        node_id = caller().node_id
        self._check_session(node_id, request.session_id)
        sequence = 0
        async with aclosing(self._hub.differences(node_id)) as differences:
            async for change in differences:
                leader = await self._store.raw_there(keys.LEADER)
                self._check_session(node_id, request.session_id)
                failpoint("dispatcher.assignments.send")
                for message in assignments_messages(change, sequence, leader.mod_revision):
                    yield message
                sequence += 1

    async def UpdateTaskStatus(
        self, request: pb.UpdateTaskStatusRequest, context: Context
    ) -> pb.UpdateTaskStatusResponse:
        node_id = caller().node_id
        self._check_session(node_id, request.session_id)
        reports = {u.task_id: codec.decode(TaskStatus, u.status) for u in request.updates}
        for _ in range(WRITE_TRIES):
            ops = accept(self._store.view, node_id, reports)
            if not ops or await self._store.apply(ops) == len(ops):
                failpoint("dispatcher.report.reply")
                return pb.UpdateTaskStatusResponse()
            await asyncio.sleep(RACE_S)
        raise Unavailable("the tasks kept changing; report again")

    def _gives_word(self, node_id: NodeID) -> bool:
        """Whether the node's exclusive tasks may go on; after it was written down nobody says so for long."""
        node = self._store.view.get(Node, node_id)
        return (
            node is not None
            and node.status.state is not NodeState.DOWN
            and node.status.manager_id == self._me
            and self._knowledge.known_s_ago <= KNOWN_WITHIN_S
        )

    def _cluster(self) -> Cluster:
        return find_cluster(self._store.view)

    def _is_cut_off(self) -> bool:
        """Whether this manager has lost the store, or its data are damaged: its nodes go to other managers.

        Nobody is judged by a silence that may be this manager's own; once it hears again, everyone has the
        usual time to turn up.
        """
        is_deaf = self._store.silent_for_s > DEAF_AFTER_S
        was_cut_off, self._cut_off = self._cut_off, is_deaf or not self._knowledge.is_trustworthy
        if self._cut_off and not was_cut_off:
            log.warning("dispatcher.cut.off", deaf=is_deaf, silent_for_s=round(self._store.silent_for_s, 1))
            for news in self._news.values():
                news.set()
        if was_cut_off and not self._cut_off:
            log.info("dispatcher.back")
            self._expect_nodes()
        return self._cut_off

    def _expect_nodes(self) -> None:
        """Nodes of a restored cluster have to find the new manager first: that takes longer."""
        now = self._clock.monotonic()
        for node in self._store.view.list(Node):
            if node.status.state is not NodeState.DOWN and node.status.manager_id == self._me:
                is_restored = node.status.message == RESTORED
                self._sessions.expect(node.id, now + RESTORED_GRACE_S if is_restored else now)

    def _check_store(self) -> None:
        if not self._knowledge.is_trustworthy:
            raise Unavailable("this manager's data are damaged: another one has to serve")
        if self._cut_off:
            raise NoQuorum

    def _spec(self) -> ClusterSpec:
        return self._cluster().spec

    def _check_session(self, node_id: NodeID, session_id: str) -> None:
        if not self._sessions.is_current(node_id, session_id):
            raise FailedPrecondition("the session is over: open a new one")

    def _check_member(self, node_id: NodeID) -> None:
        if self._store.view.get(Node, node_id) is None:
            raise NodeRemoved(node_id)

    def _end(self, node_id: NodeID) -> None:
        self._sessions.drop(node_id)
        if node_id in self._news:
            self._news[node_id].set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with `work` in the background; while the dispatcher is ending there is no use in it."""
        try:
            self._group.create_task(work)
        except RuntimeError:
            work.close()

    def _begin(self, node_id: NodeID) -> asyncio.Event:
        """The event that tells the node's session to look around; an older session sees that it is over."""
        self._check_store()
        self._check_member(node_id)
        previous = self._news.get(node_id)
        self._news[node_id] = asyncio.Event()
        if previous is not None:
            previous.set()
        return self._news[node_id]

    async def _mark_ready(self, node_id: NodeID, description: NodeDescription, address: str) -> None:
        def ready(node: Node) -> Node:
            status = replace(
                node.status, state=NodeState.READY, message="", addr=address, manager_id=self._me
            )
            if node.status.state is not NodeState.READY:
                status = replace(status, changed_at=self._clock.now())
            return replace(node, description=description, status=status)

        await self._change_node(node_id, ready)

    async def _correct(self) -> None:
        """A node with a whole session here is ready, whatever a leader has concluded meanwhile."""
        for node_id in self._sessions.list_whole():
            node = self._store.view.get(Node, node_id)
            if node is None or (node.status.state is NodeState.READY and node.status.manager_id == self._me):
                continue
            if node.status.manager_id != self._me:
                self._end(node_id)  # it has a newer session, with another manager
                continue
            try:
                await self._mark_ready(node_id, node.description, node.status.addr)
            except (NotFound, Unavailable) as error:
                log.info("node.ready.unwritten", node_id=node_id, reason=str(error))

    async def _mark_unknown(self, node_id: NodeID) -> None:
        """The stream has broken: traffic goes elsewhere while there is anywhere else, tasks stay."""

        def unknown(node: Node) -> Node | None:
            elsewhere = node.status.manager_id != self._me
            if elsewhere or node.status.state is not NodeState.READY or not self._sessions.is_broken(node_id):
                return None
            status = replace(node.status, state=NodeState.UNKNOWN, message="the session is broken")
            return replace(node, status=status)

        try:
            await self._change_node(node_id, unknown)
        except (NotFound, Unavailable) as error:
            log.info("node.unknown.unwritten", node_id=node_id, reason=str(error))

    async def _mark_away(self, node_id: NodeID, *, comes_back: bool) -> None:
        """Nobody's node from here on: the leader waits for one that is to come back, but not for ever."""

        def away(node: Node) -> Node | None:
            if self._sessions.has_session(node_id) or node.status.manager_id != self._me:
                return None
            state = NodeState.UNKNOWN if comes_back else NodeState.DOWN
            message = "swarmd is restarting" if comes_back else "the node has left the swarm"
            now = self._clock.now()
            status = replace(node.status, state=state, message=message, manager_id=NO_NODE, changed_at=now)
            return replace(node, status=status)

        try:
            await self._change_node(node_id, away)
        except Unavailable:
            self._sessions.expect(node_id, self._clock.monotonic())
            raise

    async def _mark_down(self, node_id: NodeID) -> None:
        def down(node: Node) -> Node | None:
            if self._sessions.has_session(node_id) or node.status.manager_id != self._me:
                return None  # it came back while this was being written, here or at another manager
            status = replace(
                node.status,
                state=NodeState.DOWN,
                message="heartbeat failure",
                changed_at=self._clock.now(),
            )
            return replace(node, status=status)

        try:
            if await self._change_node(node_id, down):
                log.warning("node.down", node_id=node_id)
        except NotFound:
            return
        except Unavailable as error:
            log.warning("node.down.unwritten", node_id=node_id, reason=str(error))
            self._sessions.expect(node_id, self._clock.monotonic())

    async def _change_node(self, node_id: NodeID, change: Callable[[Node], Node | None]) -> bool:
        """Write what `change` makes of the node, which is nothing when it returns None; whether it was."""
        for _ in range(WRITE_TRIES):
            node = self._store.view.get(Node, node_id)
            if node is None:
                raise NotFound("node", node_id)
            changed = change(node)
            if changed is None:
                return False
            try:
                await self._store.commit([Update(object=changed)])
            except OutOfSequence:
                await asyncio.sleep(RACE_S)
            else:
                return True
        raise Unavailable(f"node {node_id} kept changing; try again")

    async def _follow_nodes(self) -> None:
        """Have every session look around when a node, who is a manager, or the cluster has changed."""
        with self._store.changes(Node, Cluster) as changes:
            while True:
                changed = await changes.wait()
                if any(_concerns_sessions(c.old, c.new) for c in changed.values()):
                    for news in self._news.values():
                        news.set()


def _concerns_sessions(old: StoredObject | None, new: StoredObject | None) -> bool:
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return (old.spec, old.manager_status) != (new.spec, new.manager_status)


def _checked(description: NodeDescription) -> NodeDescription:
    """Raises InvalidArgument for an address that no host could send a packet to: all of them are told it."""
    address = description.data_path_address
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        raise InvalidArgument(f"invalid data path address {address!r}: it must be an IPv4 address") from None
    if wanted.is_unspecified or wanted.is_multicast:
        raise InvalidArgument(f"invalid data path address {address}: no host can have it")
    return description


def _peer_address(context: Context) -> str:
    """`ipv4:172.16.0.2:4711` -> `172.16.0.2`."""
    family, _, rest = context.peer().partition(":")
    address = rest.rpartition(":")[0]
    return address.replace("%5B", "").replace("%5D", "") if family == "ipv6" else address
