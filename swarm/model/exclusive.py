"""Exclusive services: the times by which two hosts agree, without speaking, that a task has ended.

An exclusive task runs only while its host holds a manager's word, and a lost host's task is replaced only
when that word must have run out. What each side keeps, by clocks of which only the speed matters:

- a manager gives its word in answer to a heartbeat, and only while it knows the store's state of at most
  `KNOWN_WITHIN_S` ago, which says that the node is up and with this manager;
- a host whose last word answers a heartbeat that it sent `FENCE_AFTER_S` ago kills its exclusive tasks;
- the leader counts such a task as ended (ORPHANED) when it has seen its node down, without a break, for
  `SURELY_FENCED_S`.

So after a node was written down at time D no word is given later than D + KNOWN_WITHIN_S, the host acts no
later than FENCE_AFTER_S after that, and what is left of SURELY_FENCED_S is for the kernel to do it.
"""

from __future__ import annotations

from swarm.model.objects import Task
from swarm.model.options import service_options

KNOWN_WITHIN_S = 2.0
FENCE_AFTER_S = 8.0
KILLING_S = 3.0
SURELY_FENCED_S = KNOWN_WITHIN_S + FENCE_AFTER_S + KILLING_S

BEAT_AT_LEAST_EVERY_S = 2.0
"""While a host has exclusive tasks, however seldom the cluster wants heartbeats."""


def is_exclusive(task: Task) -> bool:
    """Whether the slot of `task` must never run twice. Its labels are those it was made with."""
    return service_options(task.service_labels).exclusive
