"""Image references as Docker reads and prints them.

In: what a user wrote (`nginx`, `127.0.0.1:5000/app:2`, `web@sha256:...`). Out: a `Reference` with every
part, its full form for registries and stores, and its short ("familiar") form for people.

Invariant: `parse(str(r)) == r` and `parse(r.familiar()) == r` for every reference `r`.
Source: the reference grammar of the distribution project and Docker's short names (docker.io, library/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from swarm.base.errors import InvalidArgument

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`domain/path[:tag][@digest]`."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """Registry and path, which name the repository in full: `docker.io/library/nginx`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it: `nginx`."""
        if self.domain != DEFAULT_REGISTRY:
            return self.repository
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    def familiar(self) -> str:
        """The whole reference as people write it: `nginx:latest`."""
        return self.familiar_repository + self._suffix()

    def with_default_tag(self) -> Reference:
        """The same reference; with `:latest` if it names neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_digest(self, digest: str) -> Reference:
        """The same reference pinned to `digest`."""
        return replace(self, digest=check_digest(digest))

    def without_digest(self) -> Reference:
        return replace(self, digest=None)

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Read what a user wrote. No tag is made up: see `Reference.with_default_tag`.

    Raises:
        InvalidArgument: with Docker's sentence, which begins with `invalid reference format`.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, at, digest = text.partition("@")
    name, tag = _split_tag(rest)
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(
            f"invalid reference format: {text}: the digest must be sha256: and 64 hexadecimal digits"
        )
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidArgument("invalid reference format")
    domain, path = _split_domain(name)
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
        raise InvalidArgument("invalid reference format")
    if not _DOMAIN.fullmatch(domain):
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise InvalidArgument(
            "invalid reference format: repository name must not be more than 255 characters"
        )
    return Reference(domain=domain, path=path, tag=tag, digest=digest if at else None)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: object) -> str:
    """`text` if it is `sha256:` and 64 lower-case hexadecimal digits: safe as part of a path.

    Raises:
        InvalidArgument: otherwise.
    """
    if not isinstance(text, str) or not is_digest(text):
        raise InvalidArgument(f"invalid digest {text!r}: expected sha256: and 64 hexadecimal digits")
    return text


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon after the last slash begins the tag; one before it belongs to the registry's port."""
    head, colon, tail = text.rpartition(":")
    if colon and "/" not in tail:
        return head, tail
    return text, None


def _split_domain(name: str) -> tuple[str, str]:
    """The first part is a registry if it looks like a host: a dot, a port, `localhost`, or upper case."""
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_host else (DEFAULT_REGISTRY, name)
    if domain in {"index.docker.io", "registry-1.docker.io"}:
        domain = DEFAULT_REGISTRY
    if domain == DEFAULT_REGISTRY and "/" not in path:
        path = _OFFICIAL + path
    return domain, path
