"""What a container may do: capabilities, system calls, and the paths it does not see. Pure.

Invariant: a capability that this node cannot give is refused by name where it was asked for, and left out of
`ALL` and the defaults. Source: moby's defaults as docs/decisions/0013-containers-by-conmon-and-crun.md lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.base.errors import Fatal, InvalidArgument
from swarm.model.container_rules import capability, read_seccomp_profile
from swarm.worker.runtime.config import ContainerConfig
from swarm.worker.runtime.resolved import HostFacts
from swarm.worker.runtime.seccomp import seccomp_profile
from swarm.worker.runtime.seccomp_custom import custom_profile

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
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    capabilities: frozenset[str]
    seccomp: dict[str, object] | None
    """OCI `linux.seccomp`; None lets every call through."""
    has_default_seccomp: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]


def rights_of(config: ContainerConfig, host: HostFacts) -> Rights:
    """Raises: Fatal."""
    capabilities = _capabilities(config, host)
    mode = "unconfined" if config.privileged else config.seccomp.mode or "default"
    seccomp: dict[str, object] | None = None
    if mode == "custom":
        try:
            document = read_seccomp_profile(config.seccomp.profile)
            seccomp = custom_profile(document, capabilities=capabilities, architecture=host.architecture)
        except InvalidArgument as error:
            raise Fatal(str(error)) from error
    elif mode == "default":
        seccomp = seccomp_profile(capabilities=capabilities, architecture=host.architecture)
    is_open = config.privileged or config.are_system_paths_open
    return Rights(
        capabilities=capabilities,
        seccomp=seccomp,
        has_default_seccomp=mode == "default",
        masked_paths=() if is_open else host.masked_paths,
        readonly_paths=() if is_open else READONLY_PATHS,
    )


def _capabilities(config: ContainerConfig, host: HostFacts) -> frozenset[str]:
    if config.privileged:
        return host.capabilities
    added, dropped = _names(config.capability_add), _names(config.capability_drop)
    missing = added - {"ALL"} - host.capabilities
    if missing:
        raise Fatal(f"capability {min(missing)} cannot be added: this node does not have it")
    if "ALL" in added:
        base = host.capabilities
    else:
        base = frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES & host.capabilities
    kept = base - dropped
    return (kept | added) - {"ALL"}


def _names(words: tuple[str, ...]) -> frozenset[str]:
    try:
        return frozenset(capability(word) for word in words)
    except InvalidArgument as error:
        raise Fatal(str(error)) from error
