"""This node's config-only networks: settings for macvlan networks of the swarm, kept on its own disk.

In: `NetworkSpec`s that have been checked. Out: `Network`s, each a small JSON file in one folder.

Invariant: what `create` returned survives a power cut; settings that a task of this node has taken an address
from are not removed. A node keeps them when it leaves its swarm, as it does images and volumes.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from swarm.base.clock import Clock
from swarm.base.errors import AlreadyExists, FailedPrecondition, NotFound
from swarm.base.ids import IdSource, NetworkID
from swarm.model.docker_json import decode, encode
from swarm.model.network_rules import validate_node_settings
from swarm.model.objects import Network
from swarm.model.specs import NetworkSpec
from swarm.model.types import Meta
from swarm.overlay.record_files import RecordFiles
from swarm.proto.identity import write_private


class NodeNetworks:
    """Safe to use from several threads: each file is put in place whole."""

    def __init__(self, directory: Path, records: RecordFiles, clock: Clock, new_id: IdSource) -> None:
        """`records` are those of this host's tasks."""
        self._directory = directory
        self._records = records
        self._clock = clock
        self._new_id = new_id

    def list(self) -> list[Network]:
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FileNotFoundError):  # removed meanwhile
                found.append(_decode(path.read_text()))
        return found

    def find(self, reference: str) -> Network | None:
        """By its name or its id."""
        return next((n for n in self.list() if reference in (n.spec.name, n.id)), None)

    def settings(self, name: str) -> NetworkSpec | None:
        return next((network.spec for network in self.list() if network.spec.name == name), None)

    def create(self, spec: NetworkSpec) -> Network:
        """Raises: InvalidArgument, AlreadyExists."""
        validate_node_settings(spec)
        if self.settings(spec.name) is not None:
            raise AlreadyExists(f"network with name {spec.name} already exists")
        now = self._clock.now()
        network = Network(id=NetworkID(self._new_id()), meta=Meta(created_at=now), spec=spec)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._directory / f"{network.id}.json", _encode(network, now))
        return network

    def remove(self, reference: str) -> None:
        """Raises: NotFound, FailedPrecondition while a task of this node uses it."""
        network = self.find(reference)
        if network is None:
            raise NotFound("network", reference)
        for task_id in self._records.users_of(network.spec.name):
            raise FailedPrecondition(f"configuration network {network.spec.name} is in use by task {task_id}")
        (self._directory / f"{network.id}.json").unlink(missing_ok=True)


def _encode(network: Network, created: datetime) -> bytes:
    saved = {"ID": network.id, "Created": created.isoformat(), "Spec": encode(network.spec)}
    return json.dumps(saved, indent=1).encode()


def _decode(text: str) -> Network:
    saved = json.loads(text)
    return Network(
        id=NetworkID(saved["ID"]),
        meta=Meta(created_at=datetime.fromisoformat(saved["Created"])),
        spec=decode(NetworkSpec, saved["Spec"]),
    )
