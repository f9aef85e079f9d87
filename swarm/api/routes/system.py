"""`_ping`, `version`, `info`: what every client asks first."""

from __future__ import annotations

from aiohttp import web

from swarm import __version__
from swarm.api.backend import ClusterControl, ContainerState, NodeMembership, SwarmStatus
from swarm.api.call import Call, Route, answer
from swarm.api.host import GO_ARCHITECTURES, host_facts, hostname
from swarm.api.present import cluster_json
from swarm.base.errors import SwarmError
from swarm.model.docker_json import Json
from swarm.model.objects import Node
from swarm.model.types import NodeRole

API_VERSION = "1.50"
MIN_API_VERSION = "1.24"


async def ping(call: Call) -> web.Response:
    status = call.backend.swarm.status()
    word = status.state.value
    if status.state is NodeMembership.ACTIVE:
        word += "/manager" if status.is_manager else "/worker"
    headers = {
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Content-Type": "text/plain; charset=utf-8",
        "Swarm": word,
    }
    return web.Response(body=b"" if call.request.method == "HEAD" else b"OK", headers=headers)


async def version(_: Call) -> web.Response:
    facts = host_facts()
    arch = GO_ARCHITECTURES.get(facts.architecture, facts.architecture)
    shared = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": facts.kernel,
        "BuildTime": "",
    }
    details = shared | {"Experimental": "false"}
    return answer(
        {
            "Platform": {"Name": "Swarm"},
            "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
            "Version": __version__,
        }
        | shared
    )


async def info(call: Call) -> web.Response:
    facts = host_facts()
    engine = call.backend.engine
    states = [container.state for container in engine.containers.list()]
    running = states.count(ContainerState.RUNNING)
    status = call.backend.swarm.status()
    return answer(
        _ENGINE
        | {
            "ID": status.node_id,
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": 0,
            "ContainersStopped": len(states) - running,
            "Images": len(engine.images.list()),
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.operating_system,
            "OSVersion": facts.os_version,
            "Architecture": facts.architecture,
            "NCPU": facts.cpus,
            "MemTotal": facts.memory_bytes,
            "CgroupVersion": facts.cgroup_version,
            "DockerRootDir": engine.state_dir,
            "Name": hostname(),
            "DefaultRuntime": engine.runtime,
            "Labels": list(engine.labels),
            "RegistryConfig": _registry_config(engine.insecure_registries),
            "Runtimes": {engine.runtime: {"path": engine.runtime}},
            "Swarm": swarm_info(call, status),
            "Warnings": list(call.backend.system.warnings()) or None,
        }
    )


_ENGINE: Json = {
    "Driver": "overlay2",
    "DriverStatus": [],
    "Plugins": {
        "Volume": ["local"],
        "Network": ["overlay"],
        "Authorization": None,
        "Log": ["json-file"],
    },
    "MemoryLimit": True,
    "SwapLimit": False,
    "CpuCfsPeriod": True,
    "CpuCfsQuota": True,
    "CPUShares": True,
    "CPUSet": True,
    "PidsLimit": True,
    "IPv4Forwarding": True,
    "OomKillDisable": False,
    "Debug": False,
    "LoggingDriver": "json-file",
    "CgroupDriver": "cgroupfs",
    "OSType": "linux",
    "IndexServerAddress": "https://index.docker.io/v1/",
    "ExperimentalBuild": False,
    "ServerVersion": __version__,
    "LiveRestoreEnabled": True,
    "SecurityOptions": ["name=seccomp,profile=builtin"],
}


def _registry_config(insecure: tuple[str, ...]) -> Json:
    indexes = {name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure}
    return {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": indexes, "Mirrors": None}


def swarm_info(call: Call, status: SwarmStatus) -> Json:
    found: Json = {
        "NodeID": status.node_id,
        "NodeAddr": status.node_addr,
        "LocalNodeState": status.state.value,
        "ControlAvailable": False,
        "Error": status.error,
        "RemoteManagers": [{"NodeID": m.node_id, "Addr": m.addr} for m in status.managers] or None,
    }
    control = call.backend.control
    if control is None:
        return found
    try:
        return found | _cluster_info(call, control)
    except SwarmError as error:
        return found | {"Error": str(error)}


def _cluster_info(call: Call, control: ClusterControl) -> Json:
    cluster = control.cluster()
    nodes = control.view.list(Node)
    return {
        "ControlAvailable": True,
        "Nodes": len(nodes),
        "Managers": sum(node.spec.role is NodeRole.MANAGER for node in nodes),
        "Cluster": cluster_json(cluster, call.backend.swarm.tls_info(cluster)),
    }


ROUTES = (
    Route("HEAD", "/_ping", ping),
    Route("GET", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
)
