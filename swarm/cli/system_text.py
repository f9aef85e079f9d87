"""`info` and `version` for people: the API's answers in, Docker's text out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swarm.cli.values import binary_size, human_duration

Json = Mapping[str, Any]

_CONTAINERS = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
)
_HOST = (
    ("Default Runtime", "DefaultRuntime"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Docker Root Dir", "DockerRootDir"),
)


def info_text(info: Json, client_version: str) -> str:
    lines = ["Client:", f" Version:    {client_version}", "", "Server:"]
    lines += _fields(_CONTAINERS, info)
    plugins = {k: v for k, v in (info.get("Plugins") or {}).items() if v}
    if plugins:
        lines += [" Plugins:", *(f"  {kind}: {' '.join(names)}" for kind, names in plugins.items())]
    lines += [f" {line}" for line in swarm_lines(info.get("Swarm") or {})]
    if info.get("Runtimes"):
        lines.append(f" Runtimes: {' '.join(sorted(info['Runtimes']))}")
    lines += _fields(_HOST, info)
    lines += _listed("Labels", info.get("Labels") or ())
    lines += _listed("Insecure Registries", _insecure_registries(info.get("RegistryConfig") or {}))
    for warning in info.get("Warnings") or ():
        lines.append(warning)
    return "\n".join(lines) + "\n"


def _listed(title: str, values: Iterable[str]) -> list[str]:
    lines = [f"  {value}" for value in values]
    return [f" {title}:", *lines] if lines else []


def _insecure_registries(config: Json) -> list[str]:
    indexes = config.get("IndexConfigs") or {}
    named = sorted(name for name, index in indexes.items() if not index.get("Secure"))
    return [*named, *(config.get("InsecureRegistryCIDRs") or ())]


def _fields(names: tuple[tuple[str, str], ...], info: Json) -> list[str]:
    lines = []
    for name, key in names:
        if info.get(key) not in (None, ""):
            value = binary_size(info[key]) if key == "MemTotal" else info[key]
            lines.append(f" {name}: {value}")
    return lines


def swarm_lines(swarm: Json) -> list[str]:
    """The Swarm block; a node that is not in a swarm, or locked out of it, has one line."""
    state = swarm.get("LocalNodeState", "inactive")
    lines = [f"Swarm: {state}"]
    if state in ("inactive", "locked"):
        return lines
    lines.append(f" NodeID: {swarm.get('NodeID', '')}")
    if swarm.get("Error"):
        lines.append(f" Error: {swarm['Error']}")
    lines.append(f" Is Manager: {str(bool(swarm.get('ControlAvailable'))).lower()}")
    cluster = swarm.get("Cluster")
    if swarm.get("ControlAvailable") and cluster and not swarm.get("Error"):
        lines += [f" ClusterID: {cluster['ID']}", f" Managers: {swarm.get('Managers', 0)}"]
        lines += [f" Nodes: {swarm.get('Nodes', 0)}", *_cluster_lines(cluster)]
    lines.append(f" Node Address: {swarm.get('NodeAddr', '')}")
    managers = sorted(m["Addr"] for m in swarm.get("RemoteManagers") or ())
    if managers:
        lines += [" Manager Addresses:", *(f"  {address}" for address in managers)]
    return lines


def _cluster_lines(cluster: Json) -> list[str]:
    spec = cluster.get("Spec") or {}
    raft, ca = spec.get("Raft") or {}, spec.get("CAConfig") or {}
    history = (spec.get("Orchestration") or {}).get("TaskHistoryRetentionLimit", 0)
    autolock = (spec.get("EncryptionConfig") or {}).get("AutoLockManagers", False)
    return [
        f" Default Address Pool: {'  '.join(cluster.get('DefaultAddrPool') or ())}",
        f" SubnetSize: {cluster.get('SubnetSize', 0)}",
        f" Data Path Port: {cluster.get('DataPathPort', 0)}",
        " Orchestration:",
        f"  Task History Retention Limit: {history}",
        " Raft:",
        f"  Snapshot Interval: {raft.get('SnapshotInterval', 0)}",
        f"  Number of Old Snapshots to Retain: {raft.get('KeepOldSnapshots') or 0}",
        f"  Heartbeat Tick: {raft.get('HeartbeatTick', 0)}",
        f"  Election Tick: {raft.get('ElectionTick', 0)}",
        " Dispatcher:",
        f"  Heartbeat Period: {_age((spec.get('Dispatcher') or {}).get('HeartbeatPeriod', 0))}",
        " CA Configuration:",
        f"  Expiry Duration: {_age(ca.get('NodeCertExpiry', 0))}",
        f"  Force Rotate: {ca.get('ForceRotate', 0)}",
        f" Autolock Managers: {str(autolock).lower()}",
        f" Root Rotation In Progress: {str(cluster.get('RootRotationInProgress', False)).lower()}",
    ]


def _age(nanoseconds: int) -> str:
    return human_duration(nanoseconds / 1e9)


def version_text(client_version: str, platform: str, server: Json | None) -> str:
    lines = ["Client:", f" Version:           {client_version}", " API version:       1.50"]
    lines.append(f" OS/Arch:           {platform}")
    if server is not None:
        name = (server.get("Platform") or {}).get("Name", "")
        minimum = server.get("MinAPIVersion", "")
        lines += [
            "",
            f"Server: {name}".rstrip(),
            " Engine:",
            f"  Version:          {server.get('Version', '')}",
        ]
        lines.append(f"  API version:      {server.get('ApiVersion', '')} (minimum version {minimum})")
        for label, key in (("Git commit", "GitCommit"), ("Built", "BuildTime"), ("Kernel", "KernelVersion")):
            if server.get(key):
                lines.append(f"  {label + ':':<18}{server[key]}")
        lines.append(f"  OS/Arch:          {server.get('Os', '')}/{server.get('Arch', '')}")
    return "\n".join(lines) + "\n"
