"""What the owner of a host says of it on swarmd's command line: labels and generic resources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarm.base.errors import InvalidArgument
from swarm.model.types import GenericResource


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOffer:
    """What the host's owner says of it when swarmd starts."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """`engine.labels.…` of constraints and preferences."""
    generic_resources: tuple[GenericResource, ...] = ()


NO_OFFER = HostOffer()


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """`swarmd --label KEY=VALUE`. Raises: InvalidArgument."""
    labels: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key.strip():
            raise InvalidArgument(f"invalid label {text!r}: expected KEY=VALUE")
        if labels.setdefault(key, value) != value:
            raise InvalidArgument(f"conflicting labels for {key}={labels[key]} and {key}={value}")
    return labels
