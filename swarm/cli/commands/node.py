"""The node commands."""

from __future__ import annotations

import click

from swarm.api.client import ApiError, Client, JsonValue
from swarm.base.clock import SystemClock
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.cli.go_switches import GoGroup
from swarm.cli.options import (
    OBJECT_FORMAT_HELP,
    Json,
    Parsed,
    connect,
    filters_of,
    for_each,
    inspect_each,
    listing,
)
from swarm.cli.render import is_table, render
from swarm.cli.resolve import node_name
from swarm.cli.rows import NODES, TASKS, node_rows, task_rows
from swarm.cli.updating import Seen
from swarm.cli.values import parse_positive_duration

_DURATION = Parsed("duration", parse_positive_duration)


@click.group(cls=GoGroup)
def node() -> None:
    """Manage nodes."""


@node.command()
@listing(no_trunc=False)
@click.pass_context
def ls(ctx: click.Context, /, filters: tuple[tuple[str, str], ...], template: str, quiet: bool) -> None:
    """List nodes in the swarm; `*` marks this one."""
    with connect(ctx) as client:
        nodes = client.get("/nodes", filters=filters_of(filters))
        swarm = client.get("/info")["Swarm"]
        desired = (swarm.get("Cluster") or {}).get("TLSInfo") or {}
    rows = node_rows(nodes, swarm["NodeID"], desired)
    click.echo(render(NODES, rows, template=template, quiet=quiet), nl=False)


def _resolve_self(client: Client, name: str) -> str:
    """The node's id for `self`; outside a swarm the name stays, and the daemon's refusal says why."""
    return str(client.get("/info")["Swarm"]["NodeID"] or name) if name == "self" else name


@node.command()
@click.argument("names", metavar="self|NODE...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.option("--pretty", is_flag=True, help="Print in a form for people")
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str, pretty: bool) -> None:
    """Show nodes in detail."""
    if pretty and template:
        raise InvalidArgument("--format is incompatible with human friendly format")
    with connect(ctx) as client:

        def find(name: str) -> Json:
            found = client.get(f"/nodes/{_resolve_self(client, name)}")
            assert isinstance(found, dict)
            return found

        if not pretty:
            inspect_each(ctx, names, find, template)
            return
        from swarm.cli.pretty import pretty_node

        for_each(ctx, names, lambda name: click.echo(pretty_node(find(name)), nl=False))


@node.command()
@click.argument("names", metavar="[NODE...]", nargs=-1)
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
    """List tasks running on nodes; on this one when none is named."""
    from swarm.cli.resolve import names_of_tasks

    with connect(ctx) as client:
        wanted = list(filters)
        chosen = [client.get(f"/nodes/{_resolve_self(client, name)}") for name in names or ("self",)]
        wanted.extend(("node", found["ID"]) for found in chosen)
        tasks = client.get("/tasks", filters=filters_of(wanted))
        resolved = {} if flags["no_resolve"] else names_of_tasks(client, tasks)
    rows = task_rows(
        tasks,
        resolved,
        SystemClock().now(),
        trunc=not (flags["no_trunc"] or flags["quiet"]),
        indent=is_table(template) and not flags["quiet"],
    )
    click.echo(render(TASKS, rows, template=template, quiet=flags["quiet"]), nl=False)


@node.command()
@click.argument("names", metavar="NODE...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove a node that is not down")
@click.pass_context
def rm(ctx: click.Context, /, names: tuple[str, ...], force: bool) -> None:
    """Remove nodes from the swarm."""
    with connect(ctx) as client:

        def remove(name: str) -> None:
            client.delete(f"/nodes/{name}", force=force or None)
            click.echo(name)

        for_each(ctx, names, remove)


@node.command(epilog="Example: swarm node update --availability drain --wait h3")
@click.argument("name", metavar="NODE")
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]))
@click.option("--role", type=click.Choice(["worker", "manager"]))
@click.option("--label-add", multiple=True, metavar="KEY=VALUE", help="Add or change a node label")
@click.option("--label-rm", multiple=True, metavar="KEY", help="Remove a node label")
@click.option("--wait", is_flag=True, help="With --availability drain: until no task is left there")
@click.option("--timeout", type=_DURATION, metavar="DURATION", help="Give --wait up after this time")
@click.pass_context
def update(ctx: click.Context, /, name: str, wait: bool, timeout: int | None, **changes: JsonValue) -> None:
    """Change a node's availability, role or labels."""
    if wait and changes["availability"] != "drain":
        raise InvalidArgument("--wait goes with --availability drain")
    if timeout is not None and not wait:
        raise InvalidArgument("--timeout goes with --wait")
    with connect(ctx) as client:
        found = client.get(f"/nodes/{name}")
        seen = Seen.of(f"/nodes/{found['ID']}", found)
        seen.update(client, _changed_spec(found["Spec"], changes))
        if wait:
            from swarm.cli.drain import wait_until_empty

            timeout_s = None if timeout is None else timeout / 1e9
            wait_until_empty(client, found["ID"], node_name(found), timeout_s)
    click.echo(name)


def _changed_spec(spec: Json, changes: Json) -> Json:
    labels = dict(spec.get("Labels") or {})
    for key in changes["label_rm"]:
        if key not in labels:
            raise InvalidArgument(f"key {key} doesn't exist in node's labels")
        del labels[key]
    labels |= {key: value for key, _, value in (label.partition("=") for label in changes["label_add"])}
    spec["Labels"] = labels
    if changes["availability"] is not None:
        spec["Availability"] = changes["availability"]
    if changes["role"] is not None:
        spec["Role"] = changes["role"]
    return spec


@node.command(epilog="Example: swarm node promote h2 h3")
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.pass_context
def promote(ctx: click.Context, /, names: tuple[str, ...]) -> None:
    """Make nodes managers."""
    done = "Node {} promoted to a manager in the swarm."
    _change_role(ctx, names, "manager", "Node {} is already a manager.", done)


@node.command(epilog="Example: swarm node demote h2 h3")
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.pass_context
def demote(ctx: click.Context, /, names: tuple[str, ...]) -> None:
    """Make managers workers again."""
    if len(names) > 1:
        with connect(ctx) as client:
            _refuse_all_managers(client, names)
    _change_role(ctx, names, "worker", "Node {} is already a worker.", "Manager {} demoted in the swarm.")


def _refuse_all_managers(client: Client, names: tuple[str, ...]) -> None:
    """Each would be taken alone but for the last one: better none than all but one."""
    managers = {node["ID"] for node in client.get("/nodes") if node["Spec"]["Role"] == "manager"}
    for name in names:
        try:
            managers.discard(client.get(f"/nodes/{name}")["ID"])
        except ApiError:
            continue  # told when its turn comes
    if not managers:
        raise SwarmError("attempting to demote the last manager of the swarm: leave one of them out")


def _change_role(ctx: click.Context, names: tuple[str, ...], role: str, same: str, done: str) -> None:
    with connect(ctx) as client:

        def change(name: str) -> None:
            found = client.get(f"/nodes/{name}")
            seen, spec = Seen.of(f"/nodes/{found['ID']}", found), found["Spec"]
            if spec["Role"] == role:
                click.echo(same.format(name))
                return
            spec["Role"] = role
            seen.update(client, spec)
            click.echo(done.format(name))

        for_each(ctx, names, change)
