"""The OCI configuration of a container: everything resolved in, `config.json` as a dict out. Pure.

Invariants: capabilities are in the bounding, effective and permitted sets only (never inheritable or
ambient: CVE-2022-24769); the additional groups include the primary one (CVE-2022-36109); a pids limit is
always set; memory and swap are limited together, so a limit is what the user said. Source: OCI runtime-spec
1.0.2; moby's defaults as docs/decisions/0013-containers-by-conmon-and-crun.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.model.types import Mount, Resources
from swarm.worker.runtime.seccomp import seccomp_profile

DEFAULT_PIDS_LIMIT = 4096
CPU_PERIOD_US = 100_000
MIN_CPU_QUOTA_US = 1000
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_SHM = "/dev/shm"  # noqa: S108 - the container's own
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CHARACTER_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
"""null zero full random urandom tty console ptmx pts/*"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """All that `Containers.create` needs to know of one container."""

    id: str
    """The task's id: a second create of the same id fails by itself."""
    name: str = ""
    lower_dirs: tuple[Path, ...] = ()
    """The image's layers, topmost first."""
    args: tuple[str, ...] = ()
    """The whole command line; see `process_args`."""
    env: tuple[str, ...] = ()
    """See `process_env`."""
    cwd: str = "/"
    user: str = ""
    """As Docker takes it: `name`, `uid`, `name:group`, `uid:gid`, or nothing for root."""
    hostname: str = ""
    """Empty: the first 12 characters of the id."""
    hosts: tuple[tuple[str, str], ...] = ()
    """(address, name) lines of /etc/hosts besides localhost."""
    nameservers: tuple[str, ...] = ("127.0.0.11",)
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ("ndots:0",)
    mounts: tuple[Mount, ...] = ()
    image_volumes: tuple[str, ...] = ()
    """The image's VOLUMEs: an anonymous volume each, unless a mount is there."""
    limits: Resources = field(default_factory=Resources)
    netns: Path | None = None
    """The network namespace to enter; None makes an empty one of its own."""
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    no_new_privileges: bool = False
    read_only: bool = False

    @property
    def host_name(self) -> str:
        return self.hostname or self.id[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine has, read once."""

    architecture: str
    swap_limit: bool
    """The kernel accounts swap, so that memory plus swap can be limited."""
    masked_paths: tuple[str, ...] = MASKED_PATHS


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedMount:
    """A mount whose source exists and whose target holds no symbolic link any more."""

    target: str
    type: str = "bind"
    source: str = "tmpfs"
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the bundle's edge found out in the assembled root file system."""

    rootfs: Path
    user: User
    mounts: tuple[ResolvedMount, ...]


def process_args(
    *, command: tuple[str, ...], args: tuple[str, ...], entrypoint: tuple[str, ...], cmd: tuple[str, ...]
) -> tuple[str, ...]:
    """The command line as Docker composes it: a command replaces entrypoint and cmd, args replace the cmd.

    Raises:
        Fatal: nothing is left to run.
    """
    line = (*command, *args) if command else (*entrypoint, *(args or cmd))
    if not line:
        raise Fatal("no command specified: the image has none, give one after the image's name")
    return line


def process_env(*, image: tuple[str, ...], user: tuple[str, ...], hostname: str) -> tuple[str, ...]:
    """PATH and HOSTNAME, the image's variables, the user's; a bare `KEY` of the user removes one."""
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    for entry in image:
        key, equals, value = entry.partition("=")
        if equals:
            merged[key] = value
    for entry in user:
        key, equals, value = entry.partition("=")
        if equals:
            merged[key] = value
        else:
            merged.pop(key, None)
    return tuple(f"{key}={value}" for key, value in merged.items())


def check_config(config: ContainerConfig) -> None:
    """Refuse text that would end up in a file or an argument as something else than it says.

    Raises:
        Fatal: names the field.
    """
    if not config.args:
        raise Fatal("no command specified")
    for text in (*config.args, *config.env):
        if "\0" in text:
            raise Fatal(f"a NUL byte in the command or environment of {config.name or config.id}")
    words = (config.host_name, *config.nameservers, *config.dns_search, *config.dns_options)
    for word in (*words, *(part for pair in config.hosts for part in pair)):
        if not word or any(c.isspace() or not c.isprintable() for c in word):
            raise Fatal(f"invalid host name, address or DNS setting {word!r}")
    if len(config.host_name) > 64:
        raise Fatal(f"invalid hostname {config.host_name}: longer than 64 characters")
    if not config.cwd.startswith("/") or "\0" in config.cwd:
        raise Fatal(f"the working directory {config.cwd!r} is invalid, it needs to be an absolute path")
    if config.cwd.startswith("/proc/"):
        raise Fatal(f"the working directory {config.cwd!r} is invalid, it may not lie in /proc")


def hosts_file(config: ContainerConfig) -> str:
    """/etc/hosts. The lines were checked by `check_config`."""
    fixed = (
        ("127.0.0.1", "localhost"),
        ("::1", "localhost ip6-localhost ip6-loopback"),
        ("fe00::", "ip6-localnet"),
        ("ff00::", "ip6-mcastprefix"),
        ("ff02::1", "ip6-allnodes"),
        ("ff02::2", "ip6-allrouters"),
    )
    return "".join(f"{address}\t{name}\n" for address, name in (*fixed, *config.hosts))


def resolv_conf(config: ContainerConfig) -> str:
    lines = [f"nameserver {address}" for address in config.nameservers]
    if config.dns_search:
        lines.insert(0, "search " + " ".join(config.dns_search))
    if config.dns_options:
        lines.append("options " + " ".join(config.dns_options))
    return "".join(line + "\n" for line in lines)


def oci_spec(
    config: ContainerConfig, resolved: Resolved, host: HostFacts, *, seccomp_bpf: str = ""
) -> dict[str, object]:
    """The content of config.json.

    `seccomp_bpf` is the profile as crun compiled it before, in base64: it saves 10 ms a container. A runtime
    that does not know the annotation compiles the profile. No annotation is the user's: they command crun.
    """
    network: dict[str, object] = {"type": "network"}
    if config.netns is not None:
        network["path"] = str(config.netns)
    linux: dict[str, object] = {
        "namespaces": [*({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")), network],
        "cgroupsPath": f"/swarm/{config.id}",
        "resources": _resources(config.limits, host),
        "maskedPaths": list(host.masked_paths),
        "readonlyPaths": list(READONLY_PATHS),
        "rootfsPropagation": "private",
    }
    seccomp = seccomp_profile(capabilities=config.capabilities, architecture=host.architecture)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return {
        "ociVersion": "1.0.2",
        "process": _process(config, resolved.user),
        "root": {"path": str(resolved.rootfs), "readonly": config.read_only},
        "hostname": config.host_name,
        "mounts": _mounts(resolved.mounts),
        "linux": linux,
        "annotations": {"run.oci.seccomp_bpf_data": seccomp_bpf} if seccomp_bpf else {},
    }


def _process(config: ContainerConfig, user: User) -> dict[str, object]:
    env = list(config.env)
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={user.home}")
    gids = (user.gid, *(gid for gid in user.additional_gids if gid != user.gid))
    capabilities = sorted(config.capabilities)
    return {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(gids)},
        "args": list(config.args),
        "env": env,
        "cwd": config.cwd,
        "capabilities": {
            "bounding": capabilities,
            # A user other than root has no effective capabilities: execve would clear them anyhow.
            "effective": capabilities if user.uid == 0 else [],
            "permitted": capabilities if user.uid == 0 else [],
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": config.no_new_privileges,
    }


def _resources(limits: Resources, host: HostFacts) -> dict[str, object]:
    resources: dict[str, object] = {
        "devices": _device_rules(),
        "pids": {"limit": limits.pids or DEFAULT_PIDS_LIMIT},
    }
    if limits.nano_cpus:
        quota = max(MIN_CPU_QUOTA_US, limits.nano_cpus * CPU_PERIOD_US // 10**9)
        resources["cpu"] = {"quota": quota, "period": CPU_PERIOD_US}
    if limits.memory_bytes:
        memory = {"limit": limits.memory_bytes}
        if host.swap_limit:
            memory["swap"] = limits.memory_bytes
        resources["memory"] = memory
    return resources


def _device_rules() -> list[dict[str, object]]:
    rules: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    # Making a node is harmless: opening it is what the rules below decide.
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in _CHARACTER_DEVICES:
        rule: dict[str, object] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def _mounts(user_mounts: tuple[ResolvedMount, ...]) -> list[dict[str, object]]:
    safe = ("nosuid", "noexec", "nodev")
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
        ResolvedMount(target="/sys", type="sysfs", source="sysfs", options=(*safe, "ro")),
        ResolvedMount(target="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("ro", *safe)),
        ResolvedMount(target="/dev/mqueue", type="mqueue", source="mqueue", options=safe),
        ResolvedMount(target=_SHM, type="tmpfs", source="shm", options=(*safe, "mode=1777", "size=65536k")),
    )
    # An outer mount must not hide an inner one.
    ordered = (*mounts, *sorted(user_mounts, key=lambda mount: mount.target.count("/")))
    return [
        {"destination": m.target, "type": m.type, "source": m.source, "options": list(m.options)}
        for m in ordered
    ]
