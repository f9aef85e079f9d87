"""What a node answers about its membership: Docker's sentences, and which one fits. Pure."""

from __future__ import annotations

from swarm.api.backend import ManagerPeer
from swarm.model.objects import Node
from swarm.node.member import Member

ALREADY_IN = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_A_MANAGER = (
    "This node is not a swarm manager: --force-new-cluster recovers a swarm from a manager that still has "
    "its state"
)
NO_BACKUP_KEY = (
    "a passphrase is needed to encrypt the backup: this swarm has no unlock key that could do it "
    "(give one, or turn on autolock)"
)
STILL_JOINING = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)
LEAVING_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
STARTING = "this manager is starting and does not have the swarm's state yet: try again in a moment"
UNCERTIFIED = (
    "this manager's certificate has expired, and it signs another one when more than half of the managers "
    "are up: start them, or go on with this one alone: `swarm init --force-new-cluster`"
)
LAST_MANAGER = (
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
)
LOST_CONSENSUS = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with "
    "`--force-new-cluster`. Use `--force` to suppress this message."
)


def leaving_text(member: Member) -> str:
    """Why a manager should not just leave, in Docker's words."""
    if member.manager is None:
        return f"{LEAVING_MANAGER}Doing so may lose the consensus of your cluster. {LOST_CONSENSUS}"
    managers = [n.id for n in member.manager.view.list(Node) if n.manager_status is not None]
    if len(managers) == 1:
        return LEAVING_MANAGER + LAST_MANAGER
    reachable = sum(member.manager.is_reachable(node_id) for node_id in managers) - 1
    if reachable < len(managers) // 2 + 1:
        return (
            f"{LEAVING_MANAGER}Removing this node leaves {reachable} managers out of {len(managers)}. "
            f"Without a Raft quorum your swarm will be inaccessible. {LOST_CONSENSUS}"
        )
    return f"{LEAVING_MANAGER}Demote it first (swarm node demote), or use `--force` to leave at once."


def list_peers(member: Member) -> tuple[ManagerPeer, ...]:
    if member.manager is None:
        return tuple(ManagerPeer(node_id="", addr=address) for address in member.agent.managers)
    nodes = member.manager.view.list(Node)
    return tuple(ManagerPeer(node_id=n.id, addr=n.manager_status.addr) for n in nodes if n.manager_status)
