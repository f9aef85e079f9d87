"""Where a node keeps what: one folder for its state, one for what a reboot may take."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from swarm.base.errors import FailedPrecondition
from swarm.base.failpoint import failpoint
from swarm.model.types import NodeRole
from swarm.proto.identity import write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    state: Path = Path("/var/lib/swarm")
    """0700: keys, the store, images, containers, volumes."""
    run: Path = Path("/run/swarm")
    """Sockets, network namespaces, exit files: on a tmpfs."""

    @property
    def socket(self) -> Path:
        return self.run / "swarm.sock"

    @property
    def secret_drivers(self) -> Path:
        """Where programs listen that give secrets."""
        return self.run / "secret-drivers"

    @property
    def identity(self) -> Path:
        return self.state / "node"

    @property
    def manager(self) -> Path:
        return self.state / "manager"

    @property
    def pending_key(self) -> Path:
        """The key of an attempt to join whose answer may have been lost."""
        return self.identity / "pending.key"

    @property
    def data_key(self) -> Path:
        return self.manager / "data.key"

    @property
    def store_ca(self) -> Path:
        return self.manager / "etcd-ca.crt"

    @property
    def store_ca_key(self) -> Path:
        return self.manager / "etcd-ca.key"

    @property
    def external_store(self) -> Path:
        return self.manager / "external-etcd"

    @property
    def store_member(self) -> Path:
        """What etcd reads itself, its key in the clear: made at each start, and never on the disk."""
        return self.run / "manager"

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def worker(self) -> Path:
        return self.state / "worker"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def networks(self) -> Path:
        """Settings of config-only networks: the node's own, in a cluster or not."""
        return self.state / "networks"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a node remembers of its cluster besides its identity."""

    role: NodeRole
    advertise_address: str
    data_path_address: str
    listen_address: str
    join_port: int
    managers: tuple[str, ...]
    """host:port where managers serve nodes, the last one used first."""
    initial_cluster: str = ""
    """etcd's members when this node joined them; empty for the one that founded the cluster."""
    member_id: str = ""
    recover: bool = False
    """Start the store with this member alone and record that; done once."""
    generation: int = -1
    """Of the cluster whose store this manager has a place in; -1 while that is not known."""
    is_voter: bool = True
    """False from the time a manager's place in the store is given until it has caught up."""


def load_membership(paths: Paths) -> Membership | None:
    """The saved membership; None for a node that is in no cluster.

    Raises: FailedPrecondition when the file cannot be read.
    """
    file = paths.identity / "membership.json"
    try:
        saved = json.loads(file.read_text())
        saved["role"] = NodeRole(saved["role"])
        saved["managers"] = tuple(saved["managers"])
        return Membership(**saved)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"{file} cannot be read ({error}): restore it, or leave with --force"
        ) from error


def save_membership(paths: Paths, membership: Membership) -> None:
    """From here on the node is in its cluster; written last of all that joining writes."""
    paths.identity.mkdir(mode=0o700, parents=True, exist_ok=True)
    failpoint("membership.save.before")
    write_private(paths.identity / "membership.json", json.dumps(asdict(membership), indent=1).encode())
    failpoint("membership.save.after")


def forget_membership(paths: Paths) -> None:
    """Wipe everything of the cluster; images and volumes stay. The membership goes first.

    What an attempt to join has begun stays, too: asking again with its key gives the same node.
    """
    (paths.identity / "membership.json").unlink(missing_ok=True)
    failpoint("membership.forget.unlinked")
    if paths.identity.is_dir():
        for file in paths.identity.iterdir():
            if file != paths.pending_key:
                file.unlink()
        with suppress(OSError):
            paths.identity.rmdir()
    for folder in (paths.manager, paths.store_member, paths.etcd, paths.worker):
        shutil.rmtree(folder, ignore_errors=True)
