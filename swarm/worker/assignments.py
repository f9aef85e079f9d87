"""What the manager has told this node, folded from complete and incremental messages. Pure.

Invariant: nothing from an older leader's epoch, nothing out of sequence and no half of a step is ever taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swarm.base.errors import FailedPrecondition
from swarm.model.dataplane import (
    DataPlane,
    NetworkEndpoint,
    NetworkService,
    OverlayEndpoint,
    OverlayNetwork,
    PublishedPort,
    TunnelPeer,
)
from swarm.model.objects import Payload, Task
from swarm.model.types import Encryption
from swarm.proto import codec
from swarm.proto.gen import dispatcher_pb2 as pb

_NETWORKS = ("network", "endpoint", "port", "service", "encryption", "peer")


@dataclass(frozen=True, slots=True)
class TaskChanges:
    """What a message means for the tasks of the node."""

    assigned: tuple[Task, ...]
    withdrawn: tuple[str, ...]
    is_complete: bool
    network_changed: bool


NO_CHANGES = TaskChanges((), (), is_complete=False, network_changed=False)


@dataclass(slots=True)
class Assignments:
    epoch: int = 0
    _sequence: int = 0
    _networks: dict[str, OverlayNetwork] = field(default_factory=dict)
    _endpoints: dict[str, NetworkEndpoint] = field(default_factory=dict)
    _ports: dict[str, PublishedPort] = field(default_factory=dict)
    _services: dict[str, NetworkService] = field(default_factory=dict)
    _peers: dict[str, TunnelPeer] = field(default_factory=dict)
    _encryption: Encryption = field(default_factory=Encryption)
    _payloads: dict[str, Payload] = field(default_factory=dict, repr=False)
    _begun: list[pb.Assignment] = field(default_factory=list, repr=False)
    """Of a step whose messages have not all come."""

    def begin(self) -> None:
        """A new stream begins: what an earlier one did not finish is void."""
        self._begun.clear()

    def take(self, message: pb.AssignmentsMessage) -> TaskChanges | None:
        """None when the message is of a deposed leader.

        Raises: FailedPrecondition when messages are missing: open the stream anew.
        """
        if message.epoch < self.epoch:
            return None
        if not message.complete and message.applies_to != self._sequence:
            raise FailedPrecondition(f"assignments jump from {self._sequence} to {message.applies_to}")
        self._begun += message.updates
        if message.is_partial:
            return NO_CHANGES
        updates, self._begun = self._begun, []
        self.epoch = message.epoch
        self._sequence = message.results_in
        if message.complete:
            for known in (
                self._networks,
                self._endpoints,
                self._ports,
                self._services,
                self._peers,
                self._payloads,
            ):
                known.clear()
            self._encryption = Encryption()
        withdrawn = [key.partition("/")[2] for key in message.removals if key.startswith("task/")]
        self._forget(message)
        assigned = [task for update in updates if (task := self._learn(update)) is not None]
        keys = [*message.removals, *(u.key for u in updates)]
        return TaskChanges(
            tuple(assigned),
            tuple(withdrawn),
            message.complete,
            message.complete or any(k.startswith(_NETWORKS) for k in keys),
        )

    @property
    def payloads(self) -> Mapping[str, Payload]:
        """The secrets and configs that this node's tasks use, by `payload_id`."""
        return self._payloads

    def data_plane(self) -> DataPlane:
        endpoints: dict[str, list[OverlayEndpoint]] = {}
        for item in self._endpoints.values():
            endpoints.setdefault(item.network_id, []).append(item.endpoint)
        networks = (
            replace(n, endpoints=tuple(sorted(endpoints.get(n.id, ()), key=lambda e: e.address)))
            for n in self._networks.values()
        )
        return DataPlane(
            networks=tuple(networks),
            ports=tuple(self._ports.values()),
            services=tuple(self._services.values()),
            encryption=self._encryption,
            peers=tuple(self._peers.values()),
        )

    def _forget(self, message: pb.AssignmentsMessage) -> None:
        for key in message.removals:
            for known in (self._networks, self._endpoints, self._ports, self._services, self._peers):
                known.pop(key, None)
            self._payloads.pop(key.removeprefix("payload/"), None)

    def _learn(self, update: pb.Assignment) -> Task | None:
        match update.WhichOneof("item"):
            case "task":
                return codec.decode(Task, update.task)
            case "network":
                self._networks[update.key] = codec.decode(OverlayNetwork, update.network)
            case "endpoint":
                self._endpoints[update.key] = codec.decode(NetworkEndpoint, update.endpoint)
            case "port":
                self._ports[update.key] = codec.decode(PublishedPort, update.port)
            case "service":
                self._services[update.key] = codec.decode(NetworkService, update.service)
            case "payload":
                self._payloads[update.payload.id] = codec.decode(Payload, update.payload)
            case "peer":
                self._peers[update.key] = codec.decode(TunnelPeer, update.peer)
            case "encryption":
                self._encryption = codec.decode(Encryption, update.encryption)
        return None
