"""What the API needs of the cluster's secrets and configs. Reads go to the view."""

from __future__ import annotations

from typing import Protocol

from swarm.model.objects import Config, Secret
from swarm.model.payload_versions import VersionFacts
from swarm.model.specs import ConfigSpec, SecretSpec


class PayloadControl(Protocol):
    async def create_secret(self, spec: SecretSpec) -> Secret: ...

    async def create_config(self, spec: ConfigSpec) -> Config: ...

    async def relabel_secret(self, reference: str, version: int, spec: SecretSpec) -> None:
        """Change the labels, and nothing else."""
        ...

    async def relabel_config(self, reference: str, version: int, spec: ConfigSpec) -> None: ...

    async def remove(self, kind: type[Secret | Config], reference: str) -> None:
        """Delete it with all its versions. Raises InvalidArgument while services use it."""
        ...


class PayloadVersions(Protocol):
    async def add(self, kind: type[Secret | Config], reference: str, data: bytes) -> int:
        """The number of the new version; of the current one when that has the same data."""
        ...

    async def roll_back(self, kind: type[Secret | Config], reference: str, number: int = 0) -> int:
        """Make another version current, by default the one before; its number."""
        ...

    def history(self, kind: type[Secret | Config], reference: str) -> tuple[VersionFacts, ...]:
        """Newest first."""
        ...

    async def prune(self, kind: type[Secret | Config], reference: str) -> tuple[int, ...]:
        """Remove the versions that neither are current nor used."""
        ...
