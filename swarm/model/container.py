"""Options of a container beyond image, process and mounts. Names and meanings are the Docker Engine API's.

A field that says nothing (None, empty, 0) leaves the choice to the image or to the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """How a task's health is probed. Zero durations and retries mean: as the image says, else the default."""

    test: tuple[str, ...] = ()
    """`("NONE",)` for no check, `("CMD", arg, …)`, `("CMD-SHELL", line)`; empty takes the image's."""
    interval: timedelta = timedelta(0)
    timeout: timedelta = timedelta(0)
    retries: int = 0
    start_period: timedelta = timedelta(0)
    start_interval: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSConfig:
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    name: str = ""
    soft: int = 0
    hard: int = 0
    """-1 means without limit, for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompOpts:
    mode: str = ""
    """`default`, `unconfined` or `custom`."""
    profile: bytes = b""
    """JSON, for `custom`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppArmorOpts:
    mode: str = ""
    """`default` or `disabled`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    seccomp: SeccompOpts | None = None
    app_armor: AppArmorOpts | None = None
    no_new_privileges: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """Internal: what nodes show to the registry. Never shown to clients."""

    registry_auth: str = field(default="", repr=False)
    """The value of `X-Registry-Auth` (base64url JSON) that came with the spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A log driver."""

    name: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
