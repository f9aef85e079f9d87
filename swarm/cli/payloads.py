"""Secrets and configs on the command line: flags and objects of the API in, references, rows and text out.

`--secret`, `--config`: Docker's short form (a name) and long form (`source=,target=,uid=,gid=,mode=`), and
ours: `version=` holds it at a version, `env=` makes a secret a variable (its target is then `env:NAME`).
Raises ValueError, for flags, and InvalidArgument in Docker's words. Pure, but for `resolve_references` and
`read_data`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from swarm.api.client import Client
from swarm.base.errors import InvalidArgument
from swarm.cli.render import Row, Table
from swarm.cli.values import comma_fields, go_time, human_duration, natural_key, parse_time

Json = dict[str, Any]

KINDS = ("Secret", "Config")

_HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "CreatedAt": "CREATED",
    "UpdatedAt": "UPDATED",
    "Labels": "LABELS",
}
TABLES = {
    "Secret": Table(
        type_name="*secret.secretContext",
        columns=("ID", "Name", "Driver", "CreatedAt", "UpdatedAt"),
        headers=_HEADERS,
    ),
    "Config": Table(
        type_name="*config.configContext",
        columns=("ID", "Name", "CreatedAt", "UpdatedAt"),
        headers={key: name for key, name in _HEADERS.items() if key != "Driver"},
    ),
}


VERSIONS = Table(
    type_name="*secret.versionContext",
    columns=("Version", "Current", "CreatedAt", "Size", "Tasks"),
    headers={
        "Version": "VERSION",
        "Current": "CURRENT",
        "CreatedAt": "CREATED",
        "Size": "SIZE",
        "Tasks": "TASKS",
    },
)
_READ_AT_MOST = 1024 * 1024
"""Bytes: the daemon refuses less than this, in its own words."""


def reference_parser(kind: str) -> Callable[[str], Json]:
    """For the flag's value; `kind` is Secret or Config. What it names has no id yet."""
    return lambda text: _parse_reference(kind, text)


def removal_parser(kind: str) -> Callable[[str], Callable[[Json], bool]]:
    """What `--secret-rm NAME` and `--config-rm NAME` take away."""
    return lambda text: lambda reference: reference.get(f"{kind}Name") == text


def _parse_reference(kind: str, text: str) -> Json:
    file: Json = {"Name": "", "UID": "0", "GID": "0", "Mode": 0o444}
    fields = comma_fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        fields = [f"source={fields[0]}"]
    name, version = "", Json()
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if key.lower() in ("source", "src"):
            name = value
        elif key.lower() == "version":
            version["Version"] = _version(value)
        else:
            _set_target(kind, file, key, value)
    if not name:
        raise ValueError("source is required")
    named = {f"{kind}ID": "", f"{kind}Name": name}
    return {"File": file | {"Name": file["Name"] or name}} | named | version


def _set_target(kind: str, file: Json, key: str, value: str) -> None:
    """One of the fields that say how a container gets it."""
    match key.lower():
        case "target":
            file["Name"] = value
        case "uid" | "gid":
            file[key.upper()] = value
        case "mode":
            file["Mode"] = _mode(value)
        case "env" if kind == "Secret":
            file["Name"] = f"env:{value}"
        case _:
            raise ValueError(f"invalid field key: {key}")


def _mode(text: str) -> int:
    """As Go reads a number: octal after a leading 0."""
    digits = text[1:] if text.startswith("0") and text[1:].isdigit() else ""
    try:
        found = int(digits, 8) if digits else int(text, 0)
    except ValueError:
        found = -1
    if not 0 <= found < 2**32:
        raise ValueError(f'invalid mode specified: strconv.ParseUint: parsing "{text}": invalid syntax')
    return found


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"invalid version {text}: versions are counted from 1")
    return int(text)


def resolve_references(client: Client, spec: Json) -> None:
    """Put the ids in where a flag gave a name. Raises: InvalidArgument for a name that nothing has."""
    container = spec["TaskTemplate"]["ContainerSpec"]
    for kind in KINDS:
        fresh = [r for r in container.get(f"{kind}s") or () if not r.get(f"{kind}ID")]
        if not fresh:
            continue
        _refuse_double(kind, fresh)
        names = {reference[f"{kind}Name"]: True for reference in fresh}
        found = client.get(f"/{kind.lower()}s", filters={"name": names})
        ids = {item["Spec"]["Name"]: item["ID"] for item in found}
        for reference in fresh:
            name = reference[f"{kind}Name"]
            if name not in ids:
                raise InvalidArgument(f"{kind.lower()} not found: {name}")
            reference[f"{kind}ID"] = ids[name]


def _refuse_double(kind: str, references: Iterable[Json]) -> None:
    targets = set()
    for reference in references:
        target = reference["File"]["Name"]
        if target in targets:
            name = reference[f"{kind}Name"]
            raise InvalidArgument(f"duplicate {kind.lower()} target for {name} not allowed")
        targets.add(target)


def payload_rows(kind: str, items: Iterable[Mapping[str, Any]], now: datetime) -> list[Row]:
    """Sorted by name."""
    rows: list[Row] = []
    for item in sorted(items, key=lambda i: natural_key(i["Spec"]["Name"])):
        row: dict[str, object] = {
            "ID": item["ID"],
            "Name": item["Spec"]["Name"],
            "CreatedAt": _age(item["CreatedAt"], now),
            "UpdatedAt": _age(item["UpdatedAt"], now),
            "Labels": ",".join(
                f"{key}={value}" for key, value in sorted((item["Spec"].get("Labels") or {}).items())
            ),
        }
        if kind == "Secret":
            row["Driver"] = (item["Spec"].get("Driver") or {}).get("Name", "")
        rows.append(row)
    return rows


def _age(text: str, now: datetime) -> str:
    return f"{human_duration((now - parse_time(text)).total_seconds())} ago"


def pretty_payload(kind: str, item: Mapping[str, Any]) -> str:
    """What `inspect --pretty` prints: of a config, with its data."""
    import base64

    spec = item["Spec"]
    gap = "              " if kind == "Secret" else "\t\t\t"
    lines = [f"ID:{gap}{item['ID']}", f"Name:{gap}{spec['Name']}"]
    if spec.get("Labels"):
        labels = sorted(spec["Labels"].items())
        lines += ["Labels:", *(f" - {key}={value}" if value else f" - {key}" for key, value in labels)]
    if kind == "Secret":
        lines.append(f"Driver:            {(spec.get('Driver') or {}).get('Name', '')}")
    # Docker prints the times in lower case.
    after = "        " if kind == "Secret" else "            \t"
    lines += [f"{what} at:{after}{go_time(item[f'{what}At']).lower()}" for what in ("Created", "Updated")]
    if kind == "Config":
        lines += ["Data:", base64.b64decode(spec.get("Data") or "").decode(errors="replace")]
    return "\n".join(lines)


def read_data(source: str) -> bytes:
    """A file's content, or what comes on standard input for `-`; a little more than is allowed at most."""
    if source == "-":
        return sys.stdin.buffer.read(_READ_AT_MOST)
    with open(source, "rb") as file:
        return file.read(_READ_AT_MOST)


def version_rows(found: Iterable[Mapping[str, Any]], now: datetime) -> list[Row]:
    return [
        {
            "Version": item["Version"],
            "Current": "*" if item["Current"] else "",
            "CreatedAt": _age(item["CreatedAt"], now) if item.get("CreatedAt") else "",
            "Size": f"{item['Size']} B",
            "Tasks": ", ".join(item["Tasks"]),
        }
        for item in found
    ]
