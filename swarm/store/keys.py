"""Where things are in the key-value service. All keys of a cluster start with `/swarm/`.

/swarm/objects/<kind>/<id>        the object, sealed
/swarm/claims/<hash>              the id of the object that has a name, a port or a VNI: makes them unique
/swarm/data-key                   names of the data keys in use; only if there was ever more than one
/swarm/leader                     node id of the leading manager; its revision is the epoch
/swarm/leader-beat                rewritten by the leader while it leads
/swarm/managers/<node id>         rewritten by each manager while it serves
/swarm/named, /swarm/removed      rewritten with each service that is written, and with each secret, config or
                                  network that is removed; each compared with the other (`Crossing`)
/swarm/base                       where the revisions of a store before this one ended; only if there was one

etcd keeps keys in the clear: names and ports are hashed with the cluster's data key (`Box.blind`).
"""

from __future__ import annotations

from swarm.model.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Payload,
    Secret,
    Service,
    StoredObject,
    Task,
)
from swarm.model.types import PublishMode

PREFIX = "/swarm/"
OBJECTS = f"{PREFIX}objects/"
CLAIMS = f"{PREFIX}claims/"
DATA_KEY = f"{PREFIX}data-key"
LEADER = f"{PREFIX}leader"
LEADER_BEAT = f"{PREFIX}leader-beat"
MANAGERS = f"{PREFIX}managers/"
BASE = f"{PREFIX}base"
NAMED = f"{PREFIX}named"
REMOVED = f"{PREFIX}removed"

KINDS: dict[str, type[StoredObject]] = {
    "services": Service,
    "tasks": Task,
    "nodes": Node,
    "networks": Network,
    "clusters": Cluster,
    "secrets": Secret,
    "configs": Config,
    "payloads": Payload,
}
_FOLDERS = {kind: folder for folder, kind in KINDS.items()}


def object_key(kind: type[StoredObject], object_id: str) -> str:
    return f"{OBJECTS}{_FOLDERS[kind]}/{object_id}"


def parse_object_key(key: str) -> tuple[type[StoredObject], str] | None:
    """(kind, id) of an object's key; None for any other key."""
    if not key.startswith(OBJECTS):
        return None
    folder, _, object_id = key.removeprefix(OBJECTS).partition("/")
    kind = KINDS.get(folder)
    return (kind, object_id) if kind else None


def claims(item: StoredObject) -> frozenset[str]:
    """What an object holds alone: `names/<kind>/<name>`, `ports/<protocol>/<port>`, `vnis/<number>`."""
    match item:
        case Service():
            ports = (
                f"ports/{p.protocol}/{p.published_port}"
                for p in item.endpoint.ports
                if p.publish_mode is PublishMode.INGRESS
            )
            return frozenset({f"names/services/{item.spec.name}", *ports})
        case Network():
            name = [] if item.is_removed else [f"names/networks/{item.spec.name}"]
            return frozenset(name + ([f"vnis/{item.vni}"] if item.vni else []))
        case Cluster():
            return frozenset({f"names/clusters/{item.spec.name}"})
        case Secret():
            return frozenset({f"names/secrets/{item.spec.name}"})
        case Config():
            return frozenset({f"names/configs/{item.spec.name}"})
        case Task() | Node() | Payload():
            return frozenset()


def taken(claim: str) -> str:
    """What to tell the user whose write lost the race for a claim."""
    kind, _, rest = claim.partition("/")
    if kind == "ports":
        protocol, _, port = rest.partition("/")
        return f"port '{port}' is already in use by another service as an ingress port ({protocol})"
    if kind == "vnis":
        return f"VXLAN network identifier {rest} is already in use by another network"
    folder, _, name = rest.partition("/")
    noun = folder.removesuffix("s")
    if noun in ("secret", "config"):
        return f"{noun} {name} already exists"
    return (
        f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: "
        f"{noun} {name} already exists"
    )
