"""Which secrets and configs make sense, and which references to them. Pure; Docker's sentences if it has any.

Invariant: what passes can be delivered: a file's place is absolute in the end, climbs nowhere, belongs to no
other file or mount, and its owner and mode are numbers that the kernel takes.
Source: SwarmKit manager/controlapi/secret.go, config.go, service.go; api/validation/secrets.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from swarm.base.errors import InvalidArgument
from swarm.model.payload_template import DRIVER as TEMPLATE_DRIVER
from swarm.model.payload_template import check_payload_template
from swarm.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    SecretReference,
    SecretSpec,
)

Spec = SecretSpec | ConfigSpec
Reference = SecretReference | ConfigReference

SECRET_LIMIT_BYTES = 500 * 1024
CONFIG_LIMIT_BYTES = 1000 * 1024
SECRETS_DIRECTORY = "/run/secrets"
VARIABLE_PREFIX = "env:"
NAME_LIMIT = 64
MAX_OWNER = 2**32 - 2
"""The number after it means "leave it as it is"."""

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]{1,10}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KERNEL_DIRECTORIES = ("/proc", "/sys", "/dev")


def kind_of(item: Spec | Reference) -> str:
    """`secret` or `config`, as messages call it."""
    return "secret" if isinstance(item, SecretSpec | SecretReference) else "config"


def check_payload_spec(spec: Spec) -> None:
    """Raises InvalidArgument for a new secret or config that cannot be."""
    if len(spec.name) > NAME_LIMIT or not _NAME.fullmatch(spec.name):
        raise InvalidArgument(
            f"invalid name, only {NAME_LIMIT} [a-zA-Z0-9-_.] characters allowed, and the start and end "
            "character must be [a-zA-Z0-9]"
        )
    if isinstance(spec, SecretSpec) and spec.driver is not None:
        _check_driver(spec)
    else:
        check_size(kind_of(spec), spec.data)
    if spec.templating is not None:
        if spec.templating.name != TEMPLATE_DRIVER:
            raise InvalidArgument(
                f"template driver {spec.templating.name!r} is not supported: it must be {TEMPLATE_DRIVER!r}"
            )
        check_payload_template(f"{kind_of(spec)} {spec.name}", spec.data)


def _check_driver(spec: SecretSpec) -> None:
    name = spec.driver.name if spec.driver is not None else ""
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise InvalidArgument(f"invalid name of a secret driver {name!r}: [a-zA-Z0-9-_.] are allowed")
    if spec.data:
        raise InvalidArgument("secret data must be empty when the secret comes from a driver")


def limit_of(kind: str) -> int:
    """How many bytes a `kind` must have less than."""
    return SECRET_LIMIT_BYTES if kind == "secret" else CONFIG_LIMIT_BYTES


def check_size(kind: str, data: bytes) -> None:
    """Raises InvalidArgument for bytes that are none, or too many for a `kind`."""
    limit = limit_of(kind)
    if not 0 < len(data) < limit:
        raise InvalidArgument(f"{kind} data must be larger than 0 and less than {limit} bytes")


def references(container: ContainerSpec) -> tuple[Reference, ...]:
    """All that a container gets, secrets first."""
    return (*container.secrets, *container.configs)


def referenced(reference: Reference) -> tuple[str, str]:
    """The id and the name of what is referenced."""
    if isinstance(reference, SecretReference):
        return reference.secret_id, reference.secret_name
    return reference.config_id, reference.config_name


def target_path(reference: Reference) -> str:
    """The absolute path of the file in the container."""
    name = reference.file.name if reference.file is not None else ""
    directory = SECRETS_DIRECTORY if isinstance(reference, SecretReference) else ""
    path = name if name.startswith("/") else f"{directory}/{name}"
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def check_references(container: ContainerSpec) -> None:
    """Raises InvalidArgument for a reference that could not be delivered as it asks."""
    files = [r for r in references(container) if not _is_variable(r)]
    _check_variables(container)
    for reference in files:
        _check_reference(reference)
    _refuse_shared_targets(files)
    for reference in files:
        path = target_path(reference)
        if any(f"{mount.target.rstrip('/')}/".startswith(f"{path}/") for mount in container.mounts):
            raise InvalidArgument(
                f"{kind_of(reference)} reference '{referenced(reference)[1]}' and a mount have a conflicting "
                f"target: '{path}'"
            )


def variable_of(reference: Reference) -> str:
    """The variable that holds a secret in place of a file: its target is `env:NAME`. Empty for a file."""
    if isinstance(reference, ConfigReference) or reference.file is None:
        return ""
    return reference.file.name.partition(VARIABLE_PREFIX)[2] if _is_variable(reference) else ""


def _is_variable(reference: Reference) -> bool:
    is_secret = isinstance(reference, SecretReference)
    return is_secret and reference.file is not None and reference.file.name.startswith(VARIABLE_PREFIX)


def _check_variables(container: ContainerSpec) -> None:
    taken = {entry.partition("=")[0] for entry in container.env}
    for secret in filter(_is_variable, container.secrets):
        name, variable = secret.secret_name, variable_of(secret)
        if not secret.secret_id or not name or secret.version < 0:
            raise InvalidArgument("malformed secret reference")
        if not _VARIABLE.fullmatch(variable):
            raise InvalidArgument(f"secret reference '{name}': invalid name of a variable {variable!r}")
        if variable in taken:
            raise InvalidArgument(f"secret reference '{name}': the variable {variable} is set already")
        taken.add(variable)


def _check_reference(reference: Reference) -> None:
    kind, (object_id, name) = kind_of(reference), referenced(reference)
    if not object_id or not name:
        raise InvalidArgument(f"malformed {kind} reference")
    if reference.file is None:
        raise InvalidArgument(f"malformed {kind} reference '{name}': it names no target file")
    if reference.version < 0:
        raise InvalidArgument(f"malformed {kind} reference '{name}': versions are counted from 1")
    _check_file(kind, name, reference.file)
    path = target_path(reference)
    if path == "/" or any(f"{path}/".startswith(f"{place}/") for place in _KERNEL_DIRECTORIES):
        raise InvalidArgument(f"{kind} reference '{name}': no file can be put at '{path}'")


def _check_file(kind: str, name: str, file: FileTarget) -> None:
    parts = file.name.split("/")
    if not file.name or file.name.endswith("/") or ".." in parts or _CONTROL.search(file.name):
        raise InvalidArgument(
            f"malformed file {kind} reference, invalid target file name provided: {file.name!r} for '{name}'"
        )
    for what, text in (("uid", file.uid), ("gid", file.gid)):
        if not (_NUMBER.fullmatch(text) and int(text) <= MAX_OWNER):
            raise InvalidArgument(
                f"{kind} reference '{name}': invalid {what} {text!r}: "
                f"it must be a number from 0 to {MAX_OWNER}"
            )
    if not 0 <= file.mode <= 0o7777:
        raise InvalidArgument(
            f"{kind} reference '{name}': invalid mode {file.mode:o}: at most 7777, in octal"
        )


def _refuse_shared_targets(found: Iterable[Reference]) -> None:
    seen: dict[str, Reference] = {}
    for reference in sorted(found, key=target_path):
        path = target_path(reference)
        for place in (path, *_parents(path)):
            other = seen.get(place)
            if other is not None:
                raise InvalidArgument(
                    f"{_kinds(other, reference)} references '{referenced(other)[1]}' and "
                    f"'{referenced(reference)[1]}' have a conflicting target: '{place}'"
                )
        seen[path] = reference


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _kinds(one: Reference, other: Reference) -> str:
    return kind_of(one) if kind_of(one) == kind_of(other) else f"{kind_of(one)} and {kind_of(other)}"
