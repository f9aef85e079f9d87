"""What options of a container mean, and which make no sense: refused when a service is created. Pure.

The runtime uses the same readers, so a value that passes here means there what it meant to the user.
Source: Docker Engine API 1.50; man 7 namespaces (which sysctls a container has for itself), capabilities(7).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from swarm.base.errors import InvalidArgument
from swarm.model.container import HealthConfig, Privileges, Ulimit
from swarm.model.options import ContainerOptions

_CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(_CAPABILITIES.split())
"""In the order of the kernel's numbers, without `CAP_`."""
_ULIMITS = """
    as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
ULIMITS = frozenset(_ULIMITS.split())
MIN_HEALTH_TIME = timedelta(milliseconds=1)
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_SYSCTL = re.compile(r"[a-z0-9_-]+(?:[./][a-zA-Z0-9_:@-]+)+")
_DEVICE_ACCESS = re.compile(r"[rwm]{1,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    host: str
    container: str
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """`swarm.security-opt`, read."""

    no_new_privileges: bool = False
    is_seccomp_unconfined: bool = False
    are_system_paths_open: bool = False


def capability(text: str) -> str:
    """`NET_ADMIN`, `cap_net_admin`: as `CAP_NET_ADMIN`; `ALL` as it is. Raises: InvalidArgument."""
    name = text.upper().removeprefix("CAP_")
    if name == "ALL":
        return name
    if name not in CAPABILITIES:
        raise InvalidArgument(f"invalid capability: {text!r}: see capabilities(7)")
    return f"CAP_{name}"


def check_capabilities(names: Iterable[str]) -> None:
    for name in names:
        capability(name)


def check_sysctls(sysctls: Mapping[str, str], *, is_ipc_host: bool = False) -> None:
    """Only what the container has for itself can be set. Raises: InvalidArgument."""
    for name, value in sysctls.items():
        dotted = name.replace("/", ".")
        if not _SYSCTL.fullmatch(name) or ".." in dotted or "\0" in value or "\n" in value:
            raise InvalidArgument(f"invalid sysctl {name!r}={value!r}")
        is_ipc = dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue.")
        if is_ipc and is_ipc_host:
            raise InvalidArgument(f"sysctl '{name}' is not allowed in the host's ipc namespace")
        if not is_ipc and not dotted.startswith("net.") and dotted != "kernel.domainname":
            raise InvalidArgument(
                f"sysctl '{name}' is not allowed: it is the whole node's; a container has its own net.*, "
                "fs.mqueue.* and kernel.{msg*,sem,shm*,domainname}"
            )


def check_ulimits(ulimits: Iterable[Ulimit]) -> None:
    for limit in ulimits:
        if limit.name not in ULIMITS:
            raise InvalidArgument(
                f"invalid ulimit type: {limit.name}: choose from {', '.join(sorted(ULIMITS))}"
            )
        if limit.soft < -1 or limit.hard < -1:
            raise InvalidArgument(f"invalid ulimit {limit.name}: a limit is -1 (none) or more")
        if limit.hard >= 0 and (limit.soft < 0 or limit.soft > limit.hard):
            soft, hard = limit.soft, limit.hard
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard} ({limit.name})"
            )


def check_hosts(hosts: Iterable[str]) -> None:
    """Lines of /etc/hosts."""
    for line in hosts:
        read_host(line)


def read_host(line: str) -> tuple[tuple[str, str], ...]:
    """(address, name) for each name of an /etc/hosts line. Raises: InvalidArgument."""
    address, *names = line.split()[:32] or [""]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidArgument(
            f"invalid hosts entry {line!r}: {address!r} is not an IP address: expected 'address name'"
        ) from None
    if not names or any(not name.isprintable() or "#" in name for name in names):
        raise InvalidArgument(f"invalid hosts entry {line!r}: expected 'address name'")
    return tuple((address, name) for name in names)


def check_health(check: HealthConfig | None) -> None:
    if check is None:
        return
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f"Unknown healthcheck type {check.test[0]!r} (expected 'CMD')")
    if check.test and check.test[0] != "NONE" and len(check.test) < 2:
        raise InvalidArgument(f"invalid healthcheck: {check.test[0]} without a command")
    if check.test[:1] == ("CMD-SHELL",) and len(check.test) > 2:
        raise InvalidArgument("invalid healthcheck: CMD-SHELL takes one line")
    if any("\0" in text for text in check.test):
        raise InvalidArgument("invalid healthcheck: the command must not contain NUL")
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    for name, time in times.items():
        if time and time < MIN_HEALTH_TIME:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def check_privileges(privileges: Privileges | None) -> None:
    if privileges is None:
        return
    seccomp, apparmor = privileges.seccomp, privileges.app_armor
    if seccomp is not None:
        if seccomp.mode not in ("", "default", "unconfined", "custom"):
            raise InvalidArgument(
                f"invalid seccomp mode {seccomp.mode!r}: choose default, unconfined or custom"
            )
        if bool(seccomp.profile) != (seccomp.mode == "custom"):
            raise InvalidArgument("a seccomp profile goes with the mode custom, and only with it")
        if seccomp.profile:
            read_seccomp_profile(seccomp.profile)
    if apparmor is not None and apparmor.mode not in ("", "default", "disabled"):
        raise InvalidArgument(f"invalid AppArmor mode {apparmor.mode!r}: choose default or disabled")


def read_seccomp_profile(profile: bytes) -> dict[str, Any]:
    """A profile as Docker's `--security-opt seccomp=FILE` takes it, decoded. Raises: InvalidArgument."""
    try:
        document = json.loads(profile)
    except (ValueError, RecursionError):
        raise InvalidArgument("invalid seccomp profile: not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("defaultAction"), str):
        raise InvalidArgument("invalid seccomp profile: defaultAction is missing")
    calls = document.get("syscalls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InvalidArgument("invalid seccomp profile: syscalls is not a list of objects")
    for call in calls:
        if not isinstance(call.get("action"), str) or not (call.get("names") or call.get("name")):
            raise InvalidArgument("invalid seccomp profile: an entry of syscalls needs names and an action")
    return document


def check_container_options(options: ContainerOptions) -> None:
    """The values of our own labels. Raises: InvalidArgument."""
    for text in options.devices:
        read_device(text)
    read_security_options(options.security_opts)


def read_device(text: str) -> Device:
    """`/dev/host[:/dev/container[:rwm]]`. Raises: InvalidArgument."""
    host, *rest = text.split(":")
    access = "rwm"
    if rest and _DEVICE_ACCESS.fullmatch(rest[-1]):
        access = rest.pop()
    container = rest.pop(0) if rest else host
    paths_are_good = all(
        path.startswith("/dev/") and ".." not in path.split("/") and path.isprintable()
        for path in (host, container)
    )
    if rest or not paths_are_good:
        raise InvalidArgument(f"invalid device {text!r}: expected /dev/host[:/dev/container[:rwm]]")
    return Device(host=host, container=container, access=access)


def read_security_options(options: Iterable[str]) -> SecurityOptions:
    """Raises: InvalidArgument for one that is not known here."""
    found: dict[str, bool] = {}
    for text in options:
        if text not in _SECURITY_OPTIONS:
            raise InvalidArgument(
                f"invalid security-opt {text!r}: choose from {', '.join(sorted(_SECURITY_OPTIONS))}"
            )
        found.update(_SECURITY_OPTIONS[text])
    return SecurityOptions(**found)


_SECURITY_OPTIONS: dict[str, dict[str, bool]] = {
    "no-new-privileges": {"no_new_privileges": True},
    "no-new-privileges:true": {"no_new_privileges": True},
    "seccomp=unconfined": {"is_seccomp_unconfined": True},
    "systempaths=unconfined": {"are_system_paths_open": True},
    "apparmor=unconfined": {},  # no profile is ever set
}
