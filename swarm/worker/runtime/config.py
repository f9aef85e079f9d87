"""A container as swarmd asks for it: everything said, nothing looked up yet. Pure.

In: a command line, variables, options. Out: `ContainerConfig`, and the text files that follow from it.
Invariant: text that would end up in a file or an argument as something else than it says is refused.
Source: Docker's rules for entrypoint and environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swarm.base.errors import Fatal
from swarm.model.container import SeccompOpts, Ulimit
from swarm.model.container_rules import Device
from swarm.model.log_driver import LogPolicy
from swarm.model.types import Mount, Resources

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredFile:
    """A secret or a config, as the container sees it."""

    target: str
    """An absolute path."""
    data: bytes = field(repr=False)
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


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
    is_host_network: bool = False
    """It stays in the host's network namespace."""
    swap_bytes: int | None = None
    """Beside the memory limit; -1 for without limit, None for none."""
    swappiness: int | None = None
    capability_add: tuple[str, ...] = ()
    """`CAP_...` or `ALL`, as in `capability_drop`; to and from the default set."""
    capability_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: SeccompOpts = field(default_factory=SeccompOpts)
    read_only: bool = False
    groups: tuple[str, ...] = ()
    """Additional ones, by name or number."""
    tty: bool = False
    open_stdin: bool = False
    init: bool = False
    oom_score_adj: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    privileged: bool = False
    devices: tuple[Device, ...] = ()
    shm_bytes: int = SHM_BYTES
    pid_host: bool = False
    ipc_host: bool = False
    are_system_paths_open: bool = False
    """Nothing of /proc and /sys is masked or read-only."""
    log: LogPolicy = field(default_factory=LogPolicy)
    files: tuple[DeliveredFile, ...] = ()
    """Kept in memory alone, until the container ends."""

    @property
    def host_name(self) -> str:
        return self.hostname or self.id[:12]


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
