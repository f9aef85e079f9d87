"""Talks to registries, through skopeo.

In: a reference and perhaps a login. Out: manifests and configurations as bytes that match their digests, and
layer blobs in a folder, each hashed again here.

Invariant: credentials are in a memory file only, never in argv, the environment or on a disk; a host's own
logins are never used. No byte leaves this module that does not have the digest it was asked for by.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm.base.errors import InvalidArgument, Temporary, Unavailable
from swarm.base.log import Secret
from swarm.model.image_reference import Reference
from swarm.worker.images.errors import InvalidImage
from swarm.worker.images.files import hash_file
from swarm.worker.images.image import CONFIG_LIMIT
from swarm.worker.images.manifest import MANIFEST_LIMIT, Descriptor
from swarm.worker.images.process import Finished, OutputTooLong, Program, run
from swarm.worker.images.registry_errors import registry_error

_ENVIRONMENT = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_SLACK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    """A login. `identity_token`, when set, replaces the password."""

    username: str = ""
    password: Secret
    identity_token: Secret | None = None

    def key(self) -> str:
        """Equal for equal logins; tells nothing about them."""
        token = self.identity_token.reveal() if self.identity_token else ""
        text = "\0".join((self.username, self.password.reveal(), token))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLimits:
    request_timeout_s: float = 20.0
    download_timeout_s: float = 1800.0


class InsecureRegistries:
    """Registries that may be spoken to without a verified certificate: loopback, and what is listed."""

    def __init__(self, entries: Collection[str] = ()) -> None:
        networks = [ipaddress.ip_network(entry) for entry in _LOOPBACK]
        self._hosts = {"localhost"}
        for entry in entries:
            try:
                network = ipaddress.ip_network(entry, strict=False)
            except ValueError:
                self._hosts.add(entry)
                continue
            if not network.is_private:
                raise InvalidArgument(
                    f"insecure registry {entry} is a public address: list private networks or host names only"
                )
            networks.append(network)
        self._networks = tuple(networks)

    def covers(self, domain: str) -> bool:
        """`domain` is a reference's: `host`, `host:port` or `[address]:port`."""
        host = domain[1:].partition("]")[0] if domain.startswith("[") else domain.partition(":")[0]
        if domain in self._hosts or host in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Registry:
    def __init__(self, work: Path, insecure: InsecureRegistries, limits: RegistryLimits) -> None:
        self._work = work
        self._insecure = insecure
        self._limits = limits

    async def manifest(self, reference: Reference, auth: RegistryAuth | None) -> bytes:
        """The manifest or index that `reference` names, byte by byte as the registry has it.

        Raises:
            ImageNotFound, Unavailable, InvalidImage: see `registry_error`.
        """
        content = await self._inspect(reference, auth, ["--raw"], MANIFEST_LIMIT)
        if reference.digest:
            _check(content, reference.digest, reference)
        return content

    async def config(self, reference: Reference, descriptor: Descriptor, auth: RegistryAuth | None) -> bytes:
        """The configuration blob of the image manifest that `reference` names by digest."""
        content = await self._inspect(reference, auth, ["--raw", "--config"], CONFIG_LIMIT)
        _check(content, descriptor.digest, reference)
        return content

    async def download(
        self, reference: Reference, auth: RegistryAuth | None, layers: Sequence[Descriptor], wanted: set[str]
    ) -> Path:
        """Fetch the blobs of `layers` whose digest is in `wanted` into a new folder of the work folder.

        skopeo skips a blob that it finds in its blob folder. So each layer that this node has unpacked
        already is there as an empty file of the right size, and is not transferred again.
        """
        blobs = self._work / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for layer in layers:
            if layer.digest not in wanted:
                with (blobs / _hex(layer.digest)).open("xb") as file:
                    file.truncate(layer.size)
        arguments = [
            "--dest-shared-blob-dir",
            str(blobs.parent),
            _source(reference),
            f"oci:{self._work / 'layout'}",
        ]
        largest = max((layer.size for layer in layers), default=0) + CONFIG_LIMIT + _SLACK
        with _login(reference, auth) as (flags, descriptors):
            flags = [flag.replace("--", "--src-", 1) for flag in (*flags, *self._tls(reference))]
            program = Program(
                argv=[*self._skopeo(), "--insecure-policy", "copy", "--quiet", *flags, *arguments],
                timeout_s=self._limits.download_timeout_s,
                env=self._environment(),
                keep_fds=descriptors,
                file_size_limit=largest,
            )
            await self._run(program, reference)
        for layer in layers:
            if layer.digest in wanted:
                await asyncio.to_thread(_check_blob, blobs / _hex(layer.digest), layer)
        return blobs

    async def _inspect(
        self, reference: Reference, auth: RegistryAuth | None, what: list[str], limit: int
    ) -> bytes:
        with _login(reference, auth) as (flags, descriptors):
            program = Program(
                argv=[
                    *(*self._skopeo(), "inspect", *what),
                    *(*flags, *self._tls(reference), _source(reference)),
                ],
                timeout_s=self._limits.request_timeout_s,
                env=self._environment(),
                keep_fds=descriptors,
                stdout_limit=limit,
            )
            return (await self._run(program, reference)).stdout

    async def _run(self, program: Program, reference: Reference) -> Finished:
        try:
            finished = await run(program)
        except TimeoutError as error:
            waited = f"no answer within {program.timeout_s:.0f} s"
            raise Unavailable(f"pulling {reference.familiar()} from {reference.domain}: {waited}") from error
        except OutputTooLong as error:
            raise InvalidImage(f"pulling {reference.familiar()}: {error}") from error
        except FileNotFoundError as error:
            raise Temporary(f"pulling {reference.familiar()}: the program skopeo is not installed") from error
        if finished.code != 0:
            raise registry_error(finished.stderr, reference)
        return finished

    def _skopeo(self) -> list[str]:
        # setpriv makes the kernel end skopeo with this process, even if this process is killed.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        return [*guard, "skopeo", "--tmpdir", str(self._work)]

    def _tls(self, reference: Reference) -> list[str]:
        return ["--tls-verify=false"] if self._insecure.covers(reference.domain) else ["--tls-verify=true"]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name in _ENVIRONMENT if (value := os.environ.get(name))}
        return {**kept, "HOME": str(self._work), "TMPDIR": str(self._work)}


@contextmanager
def _login(reference: Reference, auth: RegistryAuth | None) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """skopeo's flags for `auth`, and the descriptor it needs: a file in memory that ends with the block."""
    if auth is None:
        yield ["--no-creds"], ()
        return
    entry = {"auth": base64.b64encode(f"{auth.username}:{auth.password.reveal()}".encode()).decode()}
    if auth.identity_token:
        entry["identitytoken"] = auth.identity_token.reveal()
    descriptor = os.memfd_create("login", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, json.dumps({"auths": {reference.domain: entry}}).encode())
        yield ["--authfile", f"/proc/self/fd/{descriptor}"], (descriptor,)
    finally:
        os.close(descriptor)


def _source(reference: Reference) -> str:
    """skopeo takes a tag or a digest, not both; the digest says more."""
    suffix = f"@{reference.digest}" if reference.digest else f":{reference.with_default_tag().tag}"
    return f"docker://{reference.repository}{suffix}"


def _check(content: bytes, digest: str, reference: Reference) -> None:
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != digest:
        raise InvalidImage(f"pulling {reference.familiar()}: the registry sent {found} for {digest}")


def _check_blob(path: Path, layer: Descriptor) -> None:
    if path.is_symlink() or not path.is_file():
        raise InvalidImage(f"layer {layer.digest} was not downloaded")
    if path.stat().st_size != layer.size or hash_file(path) != layer.digest:
        raise InvalidImage(f"layer {layer.digest}: the downloaded bytes do not have this digest")


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
