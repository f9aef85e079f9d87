"""Every error this project raises on purpose, in one tree.

    SwarmError
    ├── InvalidArgument      wrong input: 400, InvalidArgument
    ├── FailedPrecondition   right input, wrong moment: 400, FailedPrecondition
    ├── NotFound             404, NotFound
    ├── Ambiguous            an id prefix or name that fits several objects: 400
    ├── AlreadyExists        409, AlreadyExists
    ├── Unsupported          asked for something this version does not do: 501, Unimplemented
    ├── PermissionDenied     403, PermissionDenied
    │   └── NodeRemoved      the caller's node is no member any more
    ├── Unauthenticated      401, Unauthenticated
    ├── Unavailable          not now, perhaps soon: 503, Unavailable
    │   ├── NotManager       this node does not serve cluster state
    │   └── NoQuorum         too few managers: 500, as Docker answers
    ├── OutOfSequence        a compare-and-swap lost: 500, Unknown
    ├── LeadershipLost       a fenced write came from a deposed leader
    ├── Temporary            the agent may try again
    └── Fatal                the agent must give the task up (carries an exit code if there is one)

Each class carries its gRPC status and its HTTP code as plain numbers, so that one interceptor and one
middleware translate them; nothing here imports grpc or aiohttp.
"""

from __future__ import annotations

from typing import ClassVar

_REMOVED = " has been removed from the cluster"
_DEADLINE_EXCEEDED = 4


class SwarmError(Exception):
    """Root of the tree. `str(error)` is the sentence a user reads."""

    grpc_code: ClassVar[int] = 2
    http_code: ClassVar[int] = 500


class InvalidArgument(SwarmError):
    grpc_code = 3
    http_code = 400


class FailedPrecondition(SwarmError):
    grpc_code = 9
    http_code = 400


class NotFound(SwarmError):
    """`NotFound("service", "web")` reads `service web not found`."""

    grpc_code = 5
    http_code = 404

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name} not found")


class Ambiguous(SwarmError):
    grpc_code = 3
    http_code = 400

    def __init__(self, kind: str, name: str, matches: int) -> None:
        super().__init__(f"{kind} {name} is ambiguous ({matches} matches found)")


class AlreadyExists(SwarmError):
    grpc_code = 6
    http_code = 409


class Unsupported(SwarmError):
    grpc_code = 12
    http_code = 501


class PermissionDenied(SwarmError):
    grpc_code = 7
    http_code = 403


class NodeRemoved(PermissionDenied):
    """The node was removed: its certificate counts no more, and others run what it ran."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id}{_REMOVED}")


class Unauthenticated(SwarmError):
    grpc_code = 16
    http_code = 401


class Unavailable(SwarmError):
    grpc_code = 14
    http_code = 503


class NotManager(Unavailable):
    """Docker's two sentences for a node that holds no cluster state."""

    def __init__(self, *, in_cluster: bool) -> None:
        if in_cluster:
            text = (
                "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster "
                "state. Please run this command on a manager node or promote the current node to a manager."
            )
        else:
            text = (
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
                "to connect this node to swarm and try again."
            )
        super().__init__(text)


class NoQuorum(Unavailable):
    """The managers' store does not answer, or not for a majority. `reason` is for the log."""

    http_code = 500

    def __init__(self, reason: str = "") -> None:
        super().__init__(
            "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few "
            "managers are online. Make sure more than half of the managers are online."
        )
        self.reason = reason


class OutOfSequence(SwarmError):
    """The object changed since it was read. Clients look for the suffix `update out of sequence`."""

    def __init__(self) -> None:
        super().__init__("rpc error: code = Unknown desc = update out of sequence")


class LeadershipLost(SwarmError):
    """Another manager holds `/leader`: this one must stop deciding at once."""


class Temporary(SwarmError):
    """A step of the agent failed in a way that may pass."""


class Fatal(SwarmError):
    """A step of the agent failed for good; `exit_code` is the container's, if it ever ran."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def from_grpc(code: int, message: str) -> SwarmError:
    """The error that a peer's status `code` and `message` stand for."""
    if code == OutOfSequence.grpc_code and message.endswith("update out of sequence"):
        return OutOfSequence()
    if code == NodeRemoved.grpc_code and message.endswith(_REMOVED):
        return NodeRemoved(message.removesuffix(_REMOVED).removeprefix("node "))
    for kind in (
        InvalidArgument,
        FailedPrecondition,
        AlreadyExists,
        Unsupported,
        PermissionDenied,
        Unauthenticated,
        Unavailable,
    ):
        if kind.grpc_code == code:
            return kind(message)
    if code == _DEADLINE_EXCEEDED:
        return Unavailable(message)
    if code == NotFound.grpc_code:
        error = NotFound("object", "")
        error.args = (message,)
        return error
    return SwarmError(message)
