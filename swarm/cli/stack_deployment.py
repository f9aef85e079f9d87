"""Carrying out the plan of a deployment through the API: step by step, and back again if that is asked for.

Invariant: nothing is sent before the whole plan is known to make sense; what a failed deployment has done is
told, or undone. Networks, secrets and configs that nobody needs any more go when the services are as wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from math import inf
from typing import Any

import click

from swarm.api.client import ApiError, Client
from swarm.base.errors import SwarmError
from swarm.cli.updating import Seen
from swarm.stack.compare import CONTENT, filled_in
from swarm.stack.plan import (
    Action,
    Image,
    Kind,
    Present,
    Resolve,
    Step,
    id_of,
    is_leftover,
    plan_stack,
    stack_of,
    to_resolve,
    undo,
)
from swarm.stack.project import Stack

Json = dict[str, Any]

_VERBS = {Action.CREATE: "Creating", Action.CHANGE: "Updating", Action.REMOVE: "Removing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    prune: bool = False
    resolve: Resolve = Resolve.ALWAYS
    with_registry_auth: bool = False
    wait: bool = False
    timeout_s: float = inf
    rollback_on_failure: bool = False
    quiet: bool = False


class Deployment:
    def __init__(self, client: Client, stack: Stack, options: DeployOptions) -> None:
        self._client = client
        self._stack = stack
        self._options = options
        present = Present(**{kind.many: client.get(f"/{kind.many}") for kind in Kind})
        self._present = replace(present, other_secrets=frozenset(self._other_secrets(present)))
        self._former: dict[tuple[Kind, str], int] = {}
        """The versions that secrets and configs were at before they got new content."""
        self._ids: dict[str, dict[str, str]] = self._present.ids()
        self._service_ids = {name: id_of(item) for name, item in self._present.of(Kind.SERVICE).items()}

    def plan(self) -> tuple[Step, ...]:
        """Raises SwarmError: the stack cannot be deployed as it is."""
        return plan_stack(self._stack, self._present, self._images(), prune=self._options.prune)

    def run(self, steps: Sequence[Step]) -> None:
        """Raises SwarmError: it failed; the message says what was done, or that it was undone."""
        done: list[Step] = []
        try:
            for step in steps:
                if not is_leftover(step):
                    self._apply(step)
                    done.append(step)
            self._wait(done)
        except SwarmError as error:
            raise self._failure(error, steps, done) from error
        for step in filter(is_leftover, steps):
            self._apply(step)

    def _other_secrets(self, present: Present) -> Iterator[str]:
        """Ask the manager for each secret whether it has this content: an update that would change nothing is
        refused if it has not."""
        secrets = present.of(Kind.SECRET)
        for wanted in self._stack.secrets:
            found = secrets.get(wanted.name)
            if wanted.external or found is None or stack_of(found) != self._stack.name:
                continue
            body = found["Spec"] | {"Data": wanted.body.get("Data", "")}
            try:
                self._client.post(f"/secrets/{id_of(found)}/update", body, version=found["Version"]["Index"])
            except ApiError as error:
                if error.status != HTTPStatus.BAD_REQUEST:
                    raise
                yield wanted.name

    # --- images ------------------------------------------------------------------------------------------

    def _images(self) -> dict[str, Image]:
        from swarm.cli.registry import ask_registry

        answers: dict[str, tuple[str, list[Json]] | None] = {}
        found = {}
        for service in to_resolve(self._stack, self._present, self._options.resolve):
            name = service.body["TaskTemplate"]["ContainerSpec"]["Image"]
            if name not in answers:
                headers = self._headers(name)
                answers[name] = ask_registry(
                    self._client, name, headers, otherwise="--resolve-image never", tell=_warn
                )
            answer = answers[name]
            reference, platforms = answer if answer is not None else (name, [])
            found[service.name] = Image(reference=reference, platforms=tuple(platforms))
        return found

    def _headers(self, image: str) -> dict[str, str]:
        if not self._options.with_registry_auth:
            return {}
        from swarm.cli.registry import auth_header

        return auth_header(image)

    # --- steps -------------------------------------------------------------------------------------------

    def _apply(self, step: Step) -> None:
        if step.action is Action.KEEP and not self._is_sent_anyway(step):
            return
        if step.action is not Action.KEEP and not self._options.quiet:
            click.echo(f"{_VERBS[step.action]} {step.kind} {step.name}")
        if step.action is Action.REMOVE:
            self._client.delete(f"/{step.kind.many}/{self._id(step)}")
        elif step.action is Action.CREATE:
            self._created(step, self._post(step, f"/{step.kind.many}/create"))
        else:
            self._change(step)

    def _change(self, step: Step) -> None:
        assert step.before is not None
        path = f"/{step.kind.many}/{id_of(step.before)}"
        if CONTENT in step.changes:
            history = self._client.get(f"{path}/versions")
            self._former[step.kind, step.name] = next(each["Version"] for each in history if each["Current"])
            self._client.post(f"{path}/versions", {"Data": step.body["Data"]})
        # A new version has changed the object, and the services that use it.
        item = self._client.get(path) if self._former else step.before
        self._post(step, path, Seen.of(path, item))

    def _is_sent_anyway(self, step: Step) -> bool:
        """A login may be a new one."""
        return step.kind is Kind.SERVICE and self._options.with_registry_auth

    def _id(self, step: Step) -> str:
        if step.before is not None:
            return id_of(step.before)
        return (
            self._service_ids[step.name]
            if step.kind is Kind.SERVICE
            else self._ids[step.kind.many][step.name]
        )

    def _post(self, step: Step, path: str, seen: Seen | None = None) -> Json:
        """Make it at `path`, or change it from what was seen there."""
        body, headers = step.body, {}
        if step.kind is Kind.SERVICE:
            body = filled_in(body, self._ids)
            headers = self._headers(body["TaskTemplate"]["ContainerSpec"]["Image"])
        if seen is not None:
            answer: Json = seen.update(self._client, body, headers) or {}
        else:
            answer = self._client.post(path, body, headers=headers) or {}
        for warning in answer.get("Warnings") or ():
            click.echo(f"WARNING: {step.name}: {warning}", err=True)
        return answer

    def _created(self, step: Step, answer: Json) -> None:
        ids = self._service_ids if step.kind is Kind.SERVICE else self._ids[step.kind.many]
        ids[step.name] = id_of(answer)

    # --- waiting, and failing ----------------------------------------------------------------------------

    def _wait(self, done: Iterable[Step], *, is_back: bool = False) -> None:
        """`is_back`: they ran before, so that it is enough if they run again."""
        if not self._options.wait:
            return
        from swarm.cli.stack_wait import StackWatch

        services = [s for s in done if s.kind is Kind.SERVICE and s.action is not Action.REMOVE]
        settled = frozenset(s.name for s in services if is_back or s.action is Action.KEEP)
        names = {self._service_ids[step.name]: step.name for step in services}
        watch = StackWatch(
            self._client,
            self._stack.name,
            names,
            settled=settled,
            is_back=is_back,
            quiet=self._options.quiet,
        )
        watch.wait(self._options.timeout_s)

    def _failure(self, error: SwarmError, steps: Sequence[Step], done: Sequence[Step]) -> SwarmError:
        name = self._stack.name
        if self._options.rollback_on_failure:
            try:
                self._restore(undo(done))
            except SwarmError as second:
                return SwarmError(f"stack {name} failed ({error}), and cannot be restored: {second}")
            return SwarmError(f"stack {name} failed and is as it was before: {error}")
        changed = [step for step in done if step.action is not Action.KEEP]
        missed = [f"{s.kind} {s.name}" for s in steps[len(done) :] if s.action is not Action.KEEP]
        parts = [f"stack {name} failed: {error}"]
        parts.append(f"done: {listed([f'{s.kind} {s.name} {s.action}' for s in changed])}")
        if missed:
            parts.append(f"not done: {listed(missed)}")
        return SwarmError("; ".join(parts))

    def _restore(self, steps: Sequence[Step]) -> None:
        for (kind, name), former in self._former.items():
            self._client.post(f"/{kind.many}/{name}/rollback", to=former)
        for step in steps:
            try:
                if step.action is Action.CHANGE:
                    self._change_back(step)
                else:
                    self._apply(step)
            except ApiError as error:
                if not (step.action is Action.REMOVE and error.status == 404):
                    raise
        self._wait(steps, is_back=True)

    def _change_back(self, step: Step) -> None:
        """By a rollback if that leads to the spec that was: tasks that still have it stay."""
        path = f"/{step.kind.many}/{self._id(step)}"
        found = self._client.get(path)
        if found["Spec"] == step.body:
            return
        if found.get("PreviousSpec") != step.body:
            self._apply(replace(step, before=found))
            return
        if not self._options.quiet:
            click.echo(f"Rolling back {step.kind} {step.name}")
        Seen.of(path, found).update(self._client, {}, rollback="previous")


def _warn(text: str) -> None:
    click.echo(text, err=True)


def listed(items: Sequence[str]) -> str:
    return ", ".join(items) if items else "nothing"


def plan_lines(steps: Sequence[Step]) -> list[str]:
    """The plan as `--dry-run` shows it; changed fields follow their object."""
    found = []
    for step in steps:
        changes = f": {', '.join(step.changes)}" if step.changes else ""
        found.append(f"{step.action:<9}  {step.kind} {step.name}{changes}")
    return found
