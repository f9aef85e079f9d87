"""Compose files in, a stack out: the package's front door.

`load_stack` is what `stack deploy` sends, `resolved_config` what `stack config` prints. Files are read by
`swarm.stack.files` alone, on the client. Raises InvalidArgument and NotFound with one line that says where.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.base.errors import InvalidArgument, NotFound
from swarm.stack.check import check_project, refuse
from swarm.stack.convert import convert
from swarm.stack.env_files import read_env, read_raw
from swarm.stack.project import LoadOptions, Notice, Place, Stack
from swarm.stack.project_files import ProjectReader
from swarm.stack.readers import Path
from swarm.stack.yaml_nodes import plain_of
from swarm.stack.yaml_write import write_yaml

Json = dict[str, Any]
_STACK_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[a-zA-Z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    project: Json
    contents: Mapping[tuple[str, str], bytes]
    """What secrets and configs hold, by section and key."""
    places: Mapping[Path, Place]
    notices: tuple[Notice, ...]


def load_stack(name: str | None, files: Sequence[str], options: LoadOptions) -> Stack:
    """`name` wins over the files' `name:`; a relative path in `files` begins at `options.directory`."""
    resolved = _resolve(files, options)
    chosen = name or resolved.project.get("name", "")
    if not _STACK_NAME.fullmatch(chosen):
        raise InvalidArgument(f'invalid stack name: "{chosen}": letters, digits, - and _ between them')
    return convert(chosen, resolved.project, resolved.contents, resolved.notices, resolved.places)


def resolved_config(files: Sequence[str], options: LoadOptions) -> tuple[str, tuple[Notice, ...]]:
    """The text of one compose file that says the same, and what has no effect in it."""
    if not options.is_interpolated:
        merged: Json = {}
        for document in ProjectReader(files, options).documents():
            merged = _merged_as_written(merged, plain_of(document))
        return write_yaml(merged), ()
    resolved = _resolve(files, options)
    shown = {name: _short(service) for name, service in resolved.project["services"].items()}
    project = {
        key: value if key.startswith("x-") else _escaped(value)
        for key, value in (resolved.project | {"services": shown}).items()
    }
    return write_yaml(project), resolved.notices


def _short(service: Json) -> Json:
    """`depends_on` as a list where that says the same: Docker's client reads no other form."""
    others = service.get("depends_on", {})
    if not others or any(each["condition"] != "service_started" for each in others.values()):
        return service
    return service | {"depends_on": sorted(others)}


def _escaped(value: Any) -> Any:  # noqa: ANN401 - values of YAML
    """So that what is printed says the same when it is loaded again."""
    match value:
        case str():
            return value.replace("$", "$$")
        case dict():
            return {key: _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
    return value


def _merged_as_written(base: Any, over: Any) -> Any:  # noqa: ANN401 - values of YAML
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: _merged_as_written(base.get(key), value) for key, value in over.items()}
    if isinstance(base, list) and isinstance(over, list):
        return base + over
    return over


def _resolve(files: Sequence[str], options: LoadOptions) -> _Resolved:
    reader = ProjectReader(files, options)
    project = reader.read()
    project.pop("version", None)
    services = project.get("services", {})
    if services:
        project["services"] = _enabled(services, reader.variables, options)
    check_project(project, reader.places)
    project["services"] = {
        name: _with_environment(name, service, reader) for name, service in project["services"].items()
    }
    contents = {
        (section, key): _content(section, key, body, reader)
        for section in ("secrets", "configs")
        for key, body in project.get(section, {}).items()
        if not body.get("external") and "driver" not in body
    }
    return _Resolved(project=project, contents=contents, places=reader.places, notices=tuple(reader.notices))


def _enabled(services: Json, variables: Mapping[str, str], options: LoadOptions) -> Json:
    """Services without profiles, or with one that is asked for; what may be missing is no dependency."""
    profiles = {*options.profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    found = {
        name: service
        for name, service in services.items()
        if not service.get("profiles") or "*" in profiles or profiles & set(service["profiles"])
    }
    if not found:
        raise InvalidArgument("no service is left: each has a profile, so ask for one with --profile")
    return {name: _with_dependencies(service, found) for name, service in found.items()}


def _with_dependencies(service: Json, services: Json) -> Json:
    if "depends_on" not in service:
        return service
    kept = {
        name: {"condition": each["condition"]}
        for name, each in service["depends_on"].items()
        if name in services or each.get("required", True)
    }
    rest = {key: value for key, value in service.items() if key != "depends_on"}
    return rest | ({"depends_on": kept} if kept else {})


def _with_environment(name: str, service: Json, reader: ProjectReader) -> Json:
    """`environment` with the variables of the env files below it, and the client's values of bare names."""
    found: dict[str, str | None] = {}
    path: Path = ("services", name, "env_file")
    for file in service.get("env_file", ()):
        try:
            text = reader.files.text(file["path"])
            variables = {
                **reader.variables,
                **{key: value for key, value in found.items() if value is not None},
            }
            read = read_raw(text) if file.get("format") == "raw" else read_env(text, variables)
        except NotFound as error:
            if not file.get("required", True):
                continue
            raise refuse(reader.places, path, str(error)) from None
        except (InvalidArgument, ValueError) as error:
            is_about_text = not isinstance(error, InvalidArgument)
            shown = f"{file['path']}: {error}" if is_about_text else str(error)
            raise refuse(reader.places, path, shown) from None
        bare = {key for key, value in read.items() if value is None and key not in reader.variables}
        found |= {key: value for key, value in read.items() if key not in bare}
    found |= service.get("environment", {})
    given = {key: reader.variables.get(key) if value is None else value for key, value in found.items()}
    rest = {key: value for key, value in service.items() if key not in ("env_file", "environment")}
    return rest | ({"environment": given} if given else {})


def _content(section: str, key: str, body: Json, reader: ProjectReader) -> bytes:
    if "content" in body:
        return str(body["content"]).encode()
    if "environment" in body:
        variable = body["environment"]
        if variable not in reader.variables:
            raise refuse(
                reader.places, (section, key, "environment"), f'the variable "{variable}" is not set'
            )
        return reader.variables[variable].encode()
    try:
        return reader.files.read(body["file"])
    except (NotFound, InvalidArgument) as error:
        raise refuse(reader.places, (section, key, "file"), str(error)) from None
