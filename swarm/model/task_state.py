"""The states of a task, their order, and who may write each step.

Source: SwarmKit design/tla/Tasks.tla and api/types.proto.

Invariant: the observed state of a task only rises. Desired state is the manager's alone and only rises too.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    """Only ever desired: the task's record goes when the agent has stopped it."""
    ORPHANED = 832

    @property
    def word(self) -> str:
        """The state as clients spell it."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> TaskState:
        """Raises KeyError for a word that is no state."""
        return cls[word.upper()]


class Owner(StrEnum):
    ORCHESTRATOR = "orchestrator"
    ALLOCATOR = "allocator"
    SCHEDULER = "scheduler"
    AGENT = "agent"
    ENFORCER = "enforcer"
    DISPATCHER = "dispatcher"


OWNED_STATES: dict[Owner, frozenset[TaskState]] = {
    Owner.ORCHESTRATOR: frozenset({TaskState.NEW}),
    Owner.ALLOCATOR: frozenset({TaskState.PENDING}),
    Owner.SCHEDULER: frozenset({TaskState.ASSIGNED, TaskState.SHUTDOWN}),
    Owner.AGENT: frozenset(
        {
            TaskState.ACCEPTED,
            TaskState.PREPARING,
            TaskState.READY,
            TaskState.STARTING,
            TaskState.RUNNING,
            TaskState.COMPLETE,
            TaskState.SHUTDOWN,
            TaskState.FAILED,
            TaskState.REJECTED,
        }
    ),
    Owner.ENFORCER: frozenset({TaskState.REJECTED}),
    Owner.DISPATCHER: frozenset({TaskState.ORPHANED}),
}
"""Which observed states each component may write. The scheduler writes SHUTDOWN for a task that is no longer
wanted before it has a node: no agent knows of it."""

DESIRED_STATES = frozenset({TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE})


def can_transition(owner: Owner, old: TaskState, new: TaskState) -> bool:
    """Whether `owner` may raise a task's observed state from `old` to `new`."""
    return new in OWNED_STATES[owner] and new > old


def is_dead(state: TaskState) -> bool:
    """The task will never run (again)."""
    return state > TaskState.RUNNING
