"""Who is connected: sessions and heartbeats as a machine. Pure; times are monotonic seconds.

A node has at most one session, the newest; an older one is told that it is over. A node whose heartbeat stays
away for `silence` is down. One whose stream has broken, or whose heartbeat has stayed away for half of
that, is suspect until it is heard again: its tasks live on, but traffic goes elsewhere while it can.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.base.errors import FailedPrecondition
from swarm.base.ids import NodeID


@dataclass(slots=True)
class _Session:
    id: str
    last_beat: float
    booked: bool = False
    """The store says that the node is with this manager."""
    broken: bool = False
    late: bool = False


class Sessions:
    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._by_node: dict[NodeID, _Session] = {}

    def set_silence(self, silence_s: float) -> None:
        self._silence_s = silence_s

    def expect(self, node_id: NodeID, now: float) -> None:
        """A node known to be up, from before this manager served or heard: it has the usual time."""
        self._by_node.setdefault(node_id, _Session("", now, broken=True)).last_beat = now

    def open(self, node_id: NodeID, session_id: str, now: float) -> None:
        self._by_node[node_id] = _Session(session_id, now)

    def book(self, node_id: NodeID, session_id: str) -> None:
        """From here on the node's record tells whether it has moved on."""
        if self.is_current(node_id, session_id):
            self._by_node[node_id].booked = True

    def is_current(self, node_id: NodeID, session_id: str) -> bool:
        session = self._by_node.get(node_id)
        return session is not None and session.id == session_id != ""

    def has_session(self, node_id: NodeID) -> bool:
        """Whether the node has a session that has not been silent for too long."""
        session = self._by_node.get(node_id)
        return session is not None and session.id != ""

    def beat(self, node_id: NodeID, session_id: str, now: float) -> None:
        """Raises: FailedPrecondition when the session is over."""
        if not self.is_current(node_id, session_id):
            raise FailedPrecondition("the session is over: open a new one")
        session = self._by_node[node_id]
        session.last_beat = now

    def stream_ended(self, node_id: NodeID, session_id: str) -> bool:
        """Whether that broke the node's session: False when it was not the current one."""
        if not self.is_current(node_id, session_id):
            return False
        self._by_node[node_id].broken = True
        return True

    def is_broken(self, node_id: NodeID) -> bool:
        """The node has no session whose stream stands and that beats in time."""
        session = self._by_node.get(node_id)
        return session is None or session.broken or session.late

    def list_whole(self) -> tuple[NodeID, ...]:
        """The nodes that are booked here, whose stream stands and that beat in time."""
        return tuple(
            node
            for node, session in self._by_node.items()
            if session.booked and not (session.broken or session.late)
        )

    def mark_late(self, now: float) -> tuple[NodeID, ...]:
        """The nodes whose heartbeat has become overdue since the last call (a power cut breaks no stream)."""
        turned: list[NodeID] = []
        for node_id, session in self._by_node.items():
            late = now - session.last_beat >= self._silence_s / 2
            if late and not session.late:
                turned.append(node_id)
            session.late = late
        return tuple(turned)

    def excuse(self, standstill_s: float, now: float) -> None:
        """The manager itself stood still for so long: what it could not hear nobody failed to say."""
        for session in self._by_node.values():
            session.last_beat = min(session.last_beat + standstill_s, now)

    def expire(self, now: float) -> tuple[NodeID, ...]:
        """The nodes that have been silent too long; they are forgotten here."""
        silent = tuple(n for n, s in self._by_node.items() if now - s.last_beat >= self._silence_s)
        for node_id in silent:
            del self._by_node[node_id]
        return silent

    def drop(self, node_id: NodeID) -> None:
        self._by_node.pop(node_id, None)
