"""Compose files with what they include and extend, as one project. Reads files, by `swarm.stack.files` alone.

In: paths as the user gave them, and options. Out: the merged sections; where each value stood; notices.
Invariant: circles and depths are bounded: a file that includes itself, and a service that extends itself, are
refused with the place. Source: Compose Specification, chapters Include, Extend and Merge.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.base.errors import InvalidArgument, NotFound
from swarm.stack.check import refuse
from swarm.stack.env_files import read_env
from swarm.stack.files import ProjectFiles
from swarm.stack.interpolate import Interpolation
from swarm.stack.merge import merge
from swarm.stack.project import LoadOptions, Notice, Place
from swarm.stack.read_project import is_legacy, read_project
from swarm.stack.readers import Path, Scope
from swarm.stack.yaml_nodes import Map, Node, make_map, wrong
from swarm.stack.yaml_parse import parse_yaml

Json = dict[str, Any]
Variables = Mapping[str, str]
Chain = tuple[tuple[str, str], ...]
STDIN = "-"
MAX_LENGTH = 2 * 1024 * 1024
"""Of all files that are included and extended."""
MAX_CHAIN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeFile:
    """One file, read but for what it includes and extends."""

    path: str
    folder: str
    """Where its relative paths begin."""
    variables: Variables
    project: Json
    scope: Scope


class ProjectReader:
    """Reads the files of one project. `variables` are the client's, with those of `.env` below them."""

    def __init__(self, paths: Sequence[str], options: LoadOptions) -> None:
        if not paths:
            raise InvalidArgument("no compose file is named: use -c FILE")
        directory = os.path.abspath(options.directory)
        self._paths = [path if path == STDIN else os.path.join(directory, path) for path in paths]
        self._directory = directory
        self._options = options
        self._opened: dict[tuple[str, str, int], ComposeFile] = {}
        self._length = 0
        self.folder = directory if self._paths[0] == STDIN else os.path.dirname(self._paths[0])
        self.files = ProjectFiles(self.folder, is_outside_allowed=options.is_outside_allowed)
        self.places: dict[Path, Place] = {}
        self.notices: dict[Notice, None] = {}
        """In the order in which they were found, each once."""
        self.variables = self._client_variables()

    def _client_variables(self) -> Variables:
        named = [os.path.join(self._directory, path) for path in self._options.env_files]
        if named:
            return self._with_env_files(self._options.environment, named, is_named_by_user=True)
        try:
            return self._with_env_files(self._options.environment, [os.path.join(self.folder, ".env")])
        except NotFound:
            return self._options.environment

    def _with_env_files(
        self, variables: Variables, paths: Iterable[str], *, is_named_by_user: bool = False
    ) -> Variables:
        """`variables` win; a later file wins over an earlier one."""
        found: dict[str, str] = {}
        for path in paths:
            text = self.files.text(path, is_named_by_user=is_named_by_user)
            try:
                read = read_env(text, {**found, **variables})
            except ValueError as error:
                raise InvalidArgument(f"{path}: {error}") from None
            found |= {key: value for key, value in read.items() if value is not None}
        return {**found, **variables}

    # --- files ------------------------------------------------------------------------------------------

    def documents(self) -> list[Node]:
        """The files of the command line, as they are written. Raises: InvalidArgument, NotFound."""
        return [parse_yaml(self._text(path), self._shown(path)) for path in self._paths]

    def read(self) -> Json:
        """All of them as one. Raises: InvalidArgument with the place; NotFound."""
        project: Json = {}
        for path, document in zip(self._paths, self.documents(), strict=True):
            file = self._file(path, document, self.folder, self.variables)
            project = merge(project, self._complete(file, (path,)), file.scope.tags)
            self._keep(file)
        return project

    def _text(self, path: str) -> str:
        if path != STDIN:
            return self.files.text(path, is_named_by_user=True)
        if self._options.stdin is None:
            raise InvalidArgument("the compose file '-' is standard input, and nothing came from there")
        return self._options.stdin

    def _shown(self, path: str) -> str:
        return "<stdin>" if path == STDIN else os.path.relpath(path, self._directory)

    def _file(self, path: str, document: Node, folder: str, variables: Variables) -> ComposeFile:
        legacy = is_legacy(document)
        home = self._options.environment.get("HOME", "")
        scope = Scope(directory=folder, home=home, is_legacy=legacy)
        if isinstance(document, Map):
            document = self._interpolated(document, variables)
        project = read_project(document, scope)
        return ComposeFile(path=path, folder=folder, variables=variables, project=project, scope=scope)

    def _interpolated(self, document: Map, variables: Variables) -> Map:
        run = Interpolation(variables)
        items = [
            (key, value if key.text.startswith("x-") else run.node(value)) for key, value in document.items
        ]
        self._tell(run.notices)
        return make_map(items, document.place, document.tag)

    def _keep(self, file: ComposeFile) -> None:
        self.places.update(file.scope.places)
        self._tell(file.scope.notices)

    def _tell(self, notices: Iterable[Notice]) -> None:
        self.notices |= dict.fromkeys(notices)

    def _open(self, path: str, place: Place, folder: str, variables: Variables) -> ComposeFile:
        """A file that a compose file names at `place`; the same one with the same variables is read once."""
        key = (path, folder, id(variables))
        if key not in self._opened:
            text = self._named(path, place)
            self._length += len(text)
            if self._length > MAX_LENGTH:
                raise wrong(place, f"more than {MAX_LENGTH} characters are included and extended")
            file = self._file(path, parse_yaml(text, self._shown(path)), folder, variables)
            self._keep(file)
            self._opened[key] = file  # holds the variables: an id is one object's only while it lives
        return self._opened[key]

    def _named(self, path: str, place: Place) -> str:
        """The text of a file that is named at `place`."""
        try:
            return self.files.text(path)
        except (InvalidArgument, NotFound) as error:
            raise wrong(place, str(error)) from None

    # --- extends and include ----------------------------------------------------------------------------

    def _complete(self, file: ComposeFile, chain: tuple[str, ...]) -> Json:
        """The file's project with its services extended, and with what it includes."""
        project = dict(file.project)
        if "services" in project:
            project["services"] = {name: self._service(file, name, ()) for name in project["services"]}
        for index, include in enumerate(project.pop("include", ())):
            place = file.scope.places["include", f"[{index}]"]
            project = self._joined(self._included(file, include, place, chain), project, place)
        return project

    def _service(self, file: ComposeFile, name: str, chain: Chain) -> Json:
        service: Json = file.project["services"][name]
        extends = service.get("extends")
        if extends is None:
            return service
        places, path = file.scope.places, ("services", name, "extends")
        if (file.path, name) in chain:
            names = [each for _, each in chain[chain.index((file.path, name)) :]] + [name]
            raise refuse(places, path, f"extends itself: {' -> '.join(names)}")
        if len(chain) >= MAX_CHAIN:
            raise refuse(places, path, f"extends a service that extends another, more than {MAX_CHAIN} deep")
        target, other = extends["service"], file
        if "file" in extends:
            folder = os.path.dirname(extends["file"])
            other = self._open(extends["file"], places[path], folder, file.variables)
        if target not in other.project.get("services", {}):
            raise refuse(places, path, f'undefined service "{target}" in {self._shown(other.path)}')
        base = self._service(other, target, (*chain, (file.path, name)))
        own = {key: value for key, value in service.items() if key != "extends"}
        return merge(base, own, file.scope.tags, ("services", name))

    def _included(self, file: ComposeFile, include: Json, place: Place, chain: tuple[str, ...]) -> Json:
        paths = [os.path.join(file.folder, path) for path in include["path"]]
        for path in paths:
            self._named(path, place)
        folder = os.path.dirname(paths[0])
        if "project_directory" in include:
            folder = os.path.normpath(os.path.join(file.folder, include["project_directory"]))
        variables = self._include_variables(file, include, folder, place)
        project: Json = {}
        for path in paths:
            real = os.path.realpath(path)
            if real in {os.path.realpath(each) for each in chain}:
                raise wrong(place, f"{self._shown(path)} includes itself")
            if len(chain) >= MAX_CHAIN:
                raise wrong(place, f"a file is included by another, more than {MAX_CHAIN} deep")
            inner = self._open(path, place, folder, variables)
            project = merge(project, self._complete(inner, (*chain, path)), inner.scope.tags)
        return project

    def _include_variables(self, file: ComposeFile, include: Json, folder: str, place: Place) -> Variables:
        named = [os.path.join(file.folder, path) for path in include.get("env_file", ())]
        try:
            return self._with_env_files(file.variables, named or [os.path.join(folder, ".env")])
        except NotFound as error:
            if named:
                raise wrong(place, str(error)) from None
            return file.variables
        except InvalidArgument as error:
            raise wrong(place, str(error)) from None

    def _joined(self, included: Json, project: Json, place: Place) -> Json:
        """What a file includes beside what it says; the same name for two things is refused."""
        found = dict(project)
        for section in ("services", "networks", "volumes", "secrets", "configs"):
            theirs, own = included.get(section, {}), project.get(section, {})
            for name in theirs.keys() & own.keys():
                if theirs[name] != own[name]:
                    raise wrong(place, f"includes {section}.{name}, which this file defines otherwise")
            if theirs:
                found[section] = {**theirs, **own}
        return found
