"""What the loader hands out: a stack as bodies of Docker's API, ready to be compared and sent.

In: nothing; these are the shapes, made by `swarm.stack.load`: `load_stack(name, files, options) -> Stack` and
`resolved_config(files, options) -> str` (the text that `stack config` prints), both with InvalidArgument.
Out: for each object its name in the cluster, its body, and the names of what it needs.

Invariant: bodies name networks, secrets and configs by their names in the cluster (`Target`, `SecretName`,
`ConfigName`), never by ids: whoever sends them fills in `SecretID` and `ConfigID`. Every name that a service
uses is in the stack, among its own objects or among the external ones.
Source: Docker's `stack deploy` (labels, scoped names, default network), Engine API 1.50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

NAMESPACE_LABEL = "com.docker.stack.namespace"
IMAGE_LABEL = "com.docker.stack.image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands in a file; `web.yml:3:5` when printed. Lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A key that is read and has no effect, or not the one that one would expect, and why."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackObject:
    """A network, secret or config."""

    key: str
    """Its name in the file."""
    name: str
    """Its name in the cluster."""
    external: bool = False
    """It must be there already; the stack neither makes nor removes it."""
    body: Json = field(default_factory=dict)
    """What is posted to /networks/create, /secrets/create or /configs/create; empty when external."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackService:
    key: str
    name: str
    body: Json
    """What is posted to /services/create."""
    networks: tuple[str, ...] = ()
    """Names in the cluster of what it uses, here and in the two below."""
    secrets: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    """Names in the cluster of the stack's services that start before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    name: str
    networks: tuple[StackObject, ...] = ()
    """Only those that a service uses, as Docker does."""
    secrets: tuple[StackObject, ...] = ()
    configs: tuple[StackObject, ...] = ()
    services: tuple[StackService, ...] = ()
    """Each after those that it depends on; otherwise by name."""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the client: it wins over `.env`."""
    directory: str = "."
    """The client's working directory: paths in `files` begin here."""
    env_files: tuple[str, ...] = ()
    """`--env-file`: these are read and `.env` is not."""
    profiles: tuple[str, ...] = ()
    """`--profile`; `COMPOSE_PROFILES` of the environment counts too."""
    is_outside_allowed: bool = False
    """Files that the compose files name may lie outside the project's folder."""
    is_interpolated: bool = True
    stdin: str | None = None
    """The text of the compose file `-`."""
