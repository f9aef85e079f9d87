"""service ls and service ps."""

from __future__ import annotations

import click

from swarm.api.client import Client
from swarm.base.errors import SwarmError
from swarm.cli.options import connect, filters_of, listing
from swarm.cli.render import is_table, render
from swarm.cli.rows import SERVICES, TASKS, service_rows, task_rows


@click.command()
@listing(no_trunc=False)
@click.pass_context
def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, quiet: bool) -> None:
    """List services."""
    with connect(ctx) as client:
        services = client.get("/services", filters=filters_of(filters), status=True)
    click.echo(render(SERVICES, service_rows(services), template=template, quiet=quiet), nl=False)


@click.command(epilog="Example: swarm service ps --filter desired-state=running web")
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@listing(quiet="Only display task IDs")
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to names")
@click.pass_context
def ps(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    filters: tuple[tuple[str, str], ...],
    template: str,
    **flags: bool,
) -> None:
    """List the tasks of services, each slot's newest first."""
    from swarm.base.clock import SystemClock
    from swarm.cli.resolve import names_of_tasks

    with connect(ctx) as client:
        found, missing = _find_services(client, names)
        tasks = []
        if found:
            wanted = [*filters, *(("service", id) for id in found)]
            tasks = client.get("/tasks", filters=filters_of(wanted))
        resolved = {} if flags["no_resolve"] else names_of_tasks(client, tasks)
    if found:
        rows = task_rows(
            tasks,
            resolved,
            SystemClock().now(),
            trunc=not (flags["no_trunc"] or flags["quiet"]),
            indent=is_table(template) and not flags["quiet"],
        )
        click.echo(render(TASKS, rows, template=template, quiet=flags["quiet"]), nl=False)
    if missing:
        raise SwarmError("\n".join(f"no such service: {name}" for name in missing))


def _find_services(client: Client, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Ids of the services that names, ids or id prefixes stand for, and what stands for none."""
    from swarm.cli.resolve import find

    found, missing = [], []
    for name in names:
        service = find(client, f"/services/{name}")
        if service is None:
            missing.append(name)
        elif service["ID"] not in found:
            found.append(service["ID"])
    return found, missing
