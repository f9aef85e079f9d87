"""A user's seccomp profile in Docker's format: its document in, OCI `linux.seccomp` out. Pure.

Docker's format is OCI's with conditions: an entry counts only with certain capabilities, architectures or
kernels. Kernel conditions are taken as met: calls that a kernel lacks fail by themselves.
Source: docs.docker.com/engine/security/seccomp, OCI runtime-spec config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.base.errors import InvalidArgument

_ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def custom_profile(
    document: Mapping[str, Any], *, capabilities: frozenset[str], architecture: str
) -> dict[str, object]:
    """The profile for a container with `capabilities`. Raises: InvalidArgument."""
    goarch, native = _ARCHITECTURES.get(architecture, (architecture, ""))
    calls = [
        _call(entry)
        for entry in document.get("syscalls") or ()
        if _counts(entry, capabilities=capabilities, goarch=goarch)
    ]
    profile: dict[str, object] = {
        "defaultAction": document["defaultAction"],
        "architectures": _architectures(document, native),
        "syscalls": calls,
    }
    if document.get("defaultErrnoRet") is not None:
        profile["defaultErrnoRet"] = document["defaultErrnoRet"]
    if document.get("flags"):
        profile["flags"] = document["flags"]
    return profile


def _architectures(document: Mapping[str, Any], native: str) -> list[str]:
    listed = [str(name) for name in document.get("architectures") or ()]
    for entry in document.get("archMap") or ():
        if isinstance(entry, dict) and entry.get("architecture") == native:
            listed += [native, *(str(name) for name in entry.get("subArchitectures") or ())]
    return listed or [native]


def _counts(entry: Mapping[str, Any], *, capabilities: frozenset[str], goarch: str) -> bool:
    wanted, unwanted = _conditions(entry, "includes"), _conditions(entry, "excludes")
    if wanted["arches"] and goarch not in wanted["arches"]:
        return False
    if not capabilities.issuperset(wanted["caps"]):
        return False
    return goarch not in unwanted["arches"] and not capabilities.intersection(unwanted["caps"])


def _conditions(entry: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    found = entry.get(name) or {}
    if not isinstance(found, dict):
        raise InvalidArgument(f"invalid seccomp profile: {name} is not an object")
    return {key: [str(value) for value in found.get(key) or ()] for key in ("arches", "caps")}


def _call(entry: Mapping[str, Any]) -> dict[str, object]:
    call: dict[str, object] = {
        "names": [str(name) for name in entry.get("names") or (entry["name"],)],
        "action": entry["action"],
    }
    if entry.get("errnoRet") is not None:
        call["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        call["args"] = entry["args"]
    return call
