"""stack ls, stack ps and stack services."""

from __future__ import annotations

import click

from swarm.base.errors import SwarmError
from swarm.cli.options import FORMAT_HELP, connect, filters_of, listing
from swarm.cli.render import is_table, render
from swarm.cli.rows import SERVICES, STACKS, TASKS, service_rows, stack_rows, task_rows
from swarm.cli.stack_objects import list_stacks, named_stack

Filters = tuple[tuple[str, str], ...]


@click.command()
@click.option("--format", "template", default="", metavar="FORMAT", help=FORMAT_HELP)
@click.pass_context
def ls(ctx: click.Context, /, template: str) -> None:
    """List stacks."""
    with connect(ctx) as client:
        found = list_stacks(client)
    click.echo(render(STACKS, stack_rows(found), template=template), nl=False)


@click.command()
@click.argument("name", metavar="STACK")
@listing(no_trunc=False)
@click.pass_context
def services(ctx: click.Context, /, name: str, filters: Filters, template: str, quiet: bool) -> None:
    """List the services of a stack."""
    wanted = _filters(name, filters)
    with connect(ctx) as client:
        found = client.get("/services", filters=wanted, status=True)
    if not found:
        click.echo(f"Nothing found in stack: {name}", err=True)
        return
    click.echo(render(SERVICES, service_rows(found), template=template, quiet=quiet), nl=False)


@click.command(epilog="Example: swarm stack ps --filter desired-state=running shop")
@click.argument("name", metavar="STACK")
@listing(quiet="Only display task IDs")
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to names")
@click.pass_context
def ps(ctx: click.Context, /, name: str, filters: Filters, template: str, **flags: bool) -> None:
    """List the tasks of a stack's services, each slot's newest first."""
    from swarm.base.clock import SystemClock
    from swarm.cli.resolve import names_of_tasks

    wanted = _filters(name, filters)
    with connect(ctx) as client:
        tasks = client.get("/tasks", filters=wanted)
        resolved = {} if flags["no_resolve"] else names_of_tasks(client, tasks)
    if not tasks:
        raise SwarmError(f"nothing found in stack: {name}")
    rows = task_rows(
        tasks,
        resolved,
        SystemClock().now(),
        trunc=not flags["no_trunc"],
        indent=is_table(template) and not flags["quiet"],
    )
    click.echo(render(TASKS, rows, template=template, quiet=flags["quiet"]), nl=False)


def _filters(name: str, pairs: Filters) -> dict[str, list[str]]:
    """The user's filters, and the stack's."""
    found = filters_of(pairs) or {}
    (mine,) = named_stack(name).values()
    return found | {"label": [*found.get("label", []), *mine]}
