"""The OCI configuration of a container: everything resolved in, `config.json` as a dict out. Pure.

Invariants: capabilities are in the bounding, effective and permitted sets only (never inheritable or
ambient: CVE-2022-24769); the additional groups include the primary one (CVE-2022-36109); a pids limit is
always set; memory and swap are limited together, so a limit is what the user said. Source: OCI runtime-spec
1.0.2; moby's defaults as docs/decisions/0013-containers-by-conmon-and-crun.md lists them.
"""

from __future__ import annotations

from swarm.base.errors import Fatal
from swarm.model.container import Ulimit
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.resolved import DeviceNode, HostFacts, Resolved, ResolvedMount, User
from swarm.worker.runtime.rights import Rights, rights_of

DEFAULT_PIDS_LIMIT = 4096
CPU_PERIOD_US = 100_000
MIN_CPU_QUOTA_US = 1000

INIT_PATH = "/sbin/docker-init"
_UNLIMITED = 2**64 - 1
_SHM = "/dev/shm"  # noqa: S108 - the container's own
_CHARACTER_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
"""null zero full random urandom tty console ptmx pts/*"""


def oci_spec(
    config: ContainerConfig, resolved: Resolved, host: HostFacts, *, seccomp_bpf: str = ""
) -> dict[str, object]:
    """The content of config.json.

    `seccomp_bpf` is the profile as crun compiled it before, in base64: it saves 10 ms a container. A runtime
    that does not know the annotation compiles the profile. No annotation is the user's: they command crun.

    Raises:
        Fatal: this node cannot give what is asked for.
    """
    rights = rights_of(config, host)
    linux: dict[str, object] = {
        "namespaces": _namespaces(config),
        "cgroupsPath": f"/swarm/{config.id}",
        "resources": _resources(config, resolved.devices, host),
        "maskedPaths": list(rights.masked_paths),
        "readonlyPaths": list(rights.readonly_paths),
        "rootfsPropagation": resolved.propagation,
        "sysctl": {name.replace("/", "."): value for name, value in config.sysctls.items()},
        "devices": [_device(node) for node in resolved.devices],
    }
    if rights.seccomp is not None:
        linux["seccomp"] = rights.seccomp
    return {
        "ociVersion": "1.0.2",
        "process": _process(config, resolved.user, rights, host),
        "root": {"path": str(resolved.rootfs), "readonly": config.read_only},
        "hostname": config.host_name,
        "mounts": _mounts(config, resolved.mounts),
        "linux": linux,
        "annotations": {"run.oci.seccomp_bpf_data": seccomp_bpf} if seccomp_bpf else {},
    }


def capability_sets(capabilities: frozenset[str], uid: int) -> dict[str, list[str]]:
    names = sorted(capabilities)
    return {
        "bounding": names,
        # A user other than root has no effective capabilities: execve would clear them anyhow.
        "effective": names if uid == 0 else [],
        "permitted": names if uid == 0 else [],
        "inheritable": [],
        "ambient": [],
    }


def user_ids(user: User) -> dict[str, object]:
    gids = (user.gid, *(gid for gid in user.additional_gids if gid != user.gid))
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(gids)}


def _namespaces(config: ContainerConfig) -> list[dict[str, object]]:
    shared = {"pid": config.pid_host, "ipc": config.ipc_host}
    own = (kind for kind in ("pid", "ipc", "uts", "mount", "cgroup") if not shared.get(kind))
    namespaces: list[dict[str, object]] = [{"type": kind} for kind in own]
    if config.is_host_network:
        return namespaces
    path = {} if config.netns is None else {"path": str(config.netns)}
    return [*namespaces, {"type": "network", **path}]


def _process(config: ContainerConfig, user: User, rights: Rights, host: HostFacts) -> dict[str, object]:
    env = list(config.env)
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={user.home}")
    if config.tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    process: dict[str, object] = {
        "terminal": config.tty,
        "user": user_ids(user),
        "args": [*((INIT_PATH, "--") if config.init else ()), *config.args],
        "env": env,
        "cwd": config.cwd,
        "capabilities": capability_sets(rights.capabilities, user.uid),
        "rlimits": [_ulimit(limit, host) for limit in config.ulimits],
        "noNewPrivileges": config.no_new_privileges,
    }
    if config.oom_score_adj:
        asked, least = config.oom_score_adj, host.oom_score_adj
        if asked < least:
            raise Fatal(f"oom-score-adj {asked} is not possible: the least on this node is {least}")
        process["oomScoreAdj"] = asked
    return process


def _ulimit(limit: Ulimit, host: HostFacts) -> dict[str, object]:
    most = host.hard_limits.get(limit.name, -1)
    if most >= 0 and not 0 <= limit.hard <= most:
        asked = f"{limit.name}={limit.soft}:{limit.hard}"
        raise Fatal(f"ulimit {asked} is not possible: the most on this node is {most}")
    soft, hard = (_UNLIMITED if value < 0 else value for value in (limit.soft, limit.hard))
    return {"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard}


def _resources(
    config: ContainerConfig, devices: tuple[DeviceNode, ...], host: HostFacts
) -> dict[str, object]:
    limits = config.limits
    resources: dict[str, object] = {
        "devices": [{"allow": True, "access": "rwm"}] if config.privileged else _device_rules(devices),
        "pids": {"limit": limits.pids or DEFAULT_PIDS_LIMIT},
    }
    if limits.nano_cpus:
        quota = max(MIN_CPU_QUOTA_US, limits.nano_cpus * CPU_PERIOD_US // 10**9)
        resources["cpu"] = {"quota": quota, "period": CPU_PERIOD_US}
    memory = _memory(config, host)
    if memory:
        resources["memory"] = memory
    return resources


def _memory(config: ContainerConfig, host: HostFacts) -> dict[str, int]:
    memory: dict[str, int] = {}
    limit, swap = config.limits.memory_bytes, config.swap_bytes
    if limit:
        memory["limit"] = limit
        if host.swap_limit:
            memory["swap"] = -1 if swap == -1 else limit + (swap or 0)
        elif swap is not None and swap >= 0:
            raise Fatal("swap cannot be limited on this node: its kernel does not count swap")
    if config.swappiness is not None and config.swappiness >= 0:
        if not host.swappiness:
            raise Fatal("memory-swappiness cannot be set on this node: cgroup v2 has no such setting")
        memory["swappiness"] = config.swappiness
    return memory


def _device(node: DeviceNode) -> dict[str, object]:
    return {
        "path": node.path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def _device_rules(devices: tuple[DeviceNode, ...]) -> list[dict[str, object]]:
    rules: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    # Making a node is harmless: opening it is what the rules below decide.
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in _CHARACTER_DEVICES:
        rule: dict[str, object] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    for node in devices:
        numbers = {"major": node.major, "minor": node.minor}
        rules.append({"allow": True, "type": node.kind, **numbers, "access": node.access})
    return rules


def _mounts(config: ContainerConfig, user_mounts: tuple[ResolvedMount, ...]) -> list[dict[str, object]]:
    safe = ("nosuid", "noexec", "nodev")
    system = () if config.privileged else ("ro",)
    mounts = (
        ResolvedMount(target="/proc", type="proc", source="proc", options=safe),
        ResolvedMount(
            target="/dev", type="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")
        ),
        ResolvedMount(
            target="/dev/pts",
            type="devpts",
            source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        ResolvedMount(target="/sys", type="sysfs", source="sysfs", options=(*safe, *system)),
        ResolvedMount(target="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*system, *safe)),
        *_ipc_mounts(config),
    )
    # An outer mount must not hide an inner one.
    ordered = (*mounts, *sorted(user_mounts, key=lambda mount: mount.target.count("/")))
    return [
        {"destination": m.target, "type": m.type, "source": m.source, "options": list(m.options)}
        for m in ordered
    ]


def _ipc_mounts(config: ContainerConfig) -> tuple[ResolvedMount, ...]:
    safe = ("nosuid", "noexec", "nodev")
    if config.ipc_host:
        shm = ResolvedMount(target=_SHM, source=_SHM, options=("rbind", "rprivate", *safe))
    else:
        size = f"size={config.shm_bytes}"
        shm = ResolvedMount(target=_SHM, type="tmpfs", source="shm", options=(*safe, "mode=1777", size))
    # Message queues are always those of the ipc namespace that the container is in.
    return ResolvedMount(target="/dev/mqueue", type="mqueue", source="mqueue", options=safe), shm
