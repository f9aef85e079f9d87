"""What managers share, on this manager's disk: sealed by the vault, all but the public certificate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from swarm.api.backend import ExternalStore
from swarm.base.errors import FailedPrecondition, InvalidArgument
from swarm.manager.ca.etcd_ca import EtcdCA
from swarm.manager.members import Secrets
from swarm.node.files import Paths
from swarm.node.vault import Vault
from swarm.proto.identity import write_private
from swarm.secrets.keyring import Keyring, pack, unpack
from swarm.store.external import ExternalEtcd, check_endpoints


def save_secrets(paths: Paths, vault: Vault, secrets: Secrets) -> None:
    """Keep what managers share, sealed."""
    paths.manager.mkdir(mode=0o700, parents=True, exist_ok=True)
    save_data_keys(paths, vault, secrets.ring.data_keys)
    if secrets.store_ca is not None:
        write_private(paths.store_ca, secrets.store_ca.certificate_pem)
        vault.write(paths.store_ca_key, secrets.store_ca.key_pem)
    if secrets.external is not None:
        vault.write(paths.external_store, _encode(secrets.external))


def save_data_keys(paths: Paths, vault: Vault, data_keys: Sequence[bytes]) -> None:
    """Replace those that are kept, atomically."""
    vault.write(paths.data_key, pack(data_keys))


def _read_ring(paths: Paths, vault: Vault) -> Keyring:
    try:
        return unpack(vault.read(paths.data_key))
    except InvalidArgument as error:
        raise FailedPrecondition(f"{paths.data_key}: {error}; restore it from a backup of the disk") from None


def load_secrets(paths: Paths, vault: Vault) -> Secrets:
    """Raises: FailedPrecondition when they cannot be read."""
    store_ca, external = None, None
    if paths.store_ca.exists():
        store_ca = EtcdCA(paths.store_ca.read_bytes(), vault.read(paths.store_ca_key))
    if paths.external_store.exists():
        external = _decode(vault.read(paths.external_store))
    return Secrets(ring=_read_ring(paths, vault), store_ca=store_ca, external=external)


def read_external(wanted: ExternalStore) -> ExternalEtcd:
    """The endpoints and files that a user named, read on this host. Raises: InvalidArgument."""
    files = {"--etcd-cacert": wanted.ca_file, "--etcd-cert": wanted.cert_file, "--etcd-key": wanted.key_file}
    contents = []
    for flag, name in files.items():
        if not name:
            raise InvalidArgument(f"--etcd-endpoints needs {flag}: a file on this host")
        try:
            contents.append(Path(name).read_bytes())
        except OSError as error:
            raise InvalidArgument(f"cannot read {flag} {name}: {error.strerror}") from None
    ca, cert, key = contents
    return ExternalEtcd(endpoints=check_endpoints(wanted.endpoints), ca_pem=ca, cert_pem=cert, key_pem=key)


def _encode(external: ExternalEtcd) -> bytes:
    content = {
        "endpoints": external.endpoints,
        "ca": external.ca_pem.decode(),
        "cert": external.cert_pem.decode(),
        "key": external.key_pem.decode(),
    }
    return json.dumps(content).encode()


def _decode(content: bytes) -> ExternalEtcd:
    saved = json.loads(content)
    return ExternalEtcd(
        endpoints=tuple(saved["endpoints"]),
        ca_pem=saved["ca"].encode(),
        cert_pem=saved["cert"].encode(),
        key_pem=saved["key"].encode(),
    )
