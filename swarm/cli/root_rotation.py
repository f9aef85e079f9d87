"""How far the swarm is on its way to another root CA: objects of the API in, lines out. Pure.

Source: docker/cli's progress of `swarm ca --rotate`, seen in its output. In addition nodes that are not up
are named, since it is they who hold everything up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootProgress:
    lines: tuple[str, ...]
    done: bool


def root_progress(swarm: Json, nodes: Sequence[Json]) -> RootProgress:
    desired = swarm["TLSInfo"]
    certified = [node for node in nodes if _issuer(_tls(node)) == _issuer(desired)]
    in_progress = bool(swarm.get("RootRotationInProgress"))
    trusting = [] if in_progress else [n for n in nodes if _tls(n).get("TrustRoot") == desired["TrustRoot"]]
    digest = sha256(desired["TrustRoot"].encode()).hexdigest()
    total = len(nodes)
    lines = [
        f"desired root digest: sha256:{digest}",
        f"  rotated TLS certificates:  {len(certified)}/{total} nodes",
        f"  rotated CA certificates:   {len(trusting)}/{total} nodes",
    ]
    lines += [f"waiting for {_name(node)}" for node in nodes if _blocks(node, desired)]
    return RootProgress(lines=tuple(lines), done=len(certified) == len(trusting) == total and not in_progress)


def tls_status(node: Json, desired: Json) -> str:
    """Docker's word for it in `node ls`."""
    if not _tls(node).get("TrustRoot"):
        return "Unknown"
    return "Ready" if has_rotated(node, desired) else "Needs Rotation"


def has_rotated(node: Json, desired: Json) -> bool:
    """Whether the node trusts the wanted root alone and has a certificate of it."""
    said = _tls(node)
    return _issuer(said) == _issuer(desired) and said.get("TrustRoot") == desired.get("TrustRoot")


def _blocks(node: Json, desired: Json) -> bool:
    return node["Status"]["State"] != "ready" and not has_rotated(node, desired)


def _name(node: Json) -> str:
    name, state = node["Description"].get("Hostname") or node["ID"], node["Status"]["State"]
    return f"{name}: it is {state} (bring it back, or remove it with: swarm node rm {node['ID']})"


def _tls(node: Json) -> Json:
    found: Json = node["Description"].get("TLSInfo") or {}
    return found


def _issuer(info: Json) -> tuple[object, object]:
    return info.get("CertIssuerSubject"), info.get("CertIssuerPublicKey")
