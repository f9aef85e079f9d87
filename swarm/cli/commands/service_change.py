"""service scale, service rebalance and service rm."""

from __future__ import annotations

import click

from swarm.api.client import ApiError, Client
from swarm.base.errors import InvalidArgument, SwarmError
from swarm.cli.commands.service_update import find_service
from swarm.cli.options import connect, for_each, missing
from swarm.cli.service_edit import edit_replicas
from swarm.cli.updating import Seen
from swarm.cli.values import parse_unsigned


@click.command(epilog="Example: swarm service scale web=10")
@click.argument("pairs", metavar="SERVICE=REPLICAS...", nargs=-1, required=True)
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the service has converged")
@click.pass_context
def scale(ctx: click.Context, /, pairs: tuple[str, ...], detach: bool) -> None:
    """Scale one or several replicated services."""
    targets = [_parse_target(pair) for pair in pairs]
    scaled: list[str] = []
    with connect(ctx) as client:

        def change(pair: str) -> None:
            name, replicas = _parse_target(pair)
            scaled.append(_scale_one(client, name, replicas))
            click.echo(f"{name} scaled to {replicas}")

        failed = False
        try:
            for_each(ctx, [f"{name}={replicas}" for name, replicas in targets], change)
        except click.exceptions.Exit:
            failed = True
        if not detach:
            from swarm.cli.progress import watch_service

            for id in scaled:
                watch_service(client, id)
    if failed:
        ctx.exit(1)


def _parse_target(pair: str) -> tuple[str, int]:
    name, equals, replicas = pair.partition("=")
    if not equals or not name:
        raise InvalidArgument(f"invalid scale specifier '{pair}': write SERVICE=REPLICAS, such as web=3")
    try:
        return name, parse_unsigned(replicas)
    except ValueError as error:
        raise InvalidArgument(f"{name}: invalid replicas value {replicas}: {error}") from None


def _scale_one(client: Client, name: str, replicas: int) -> str:
    service = find_service(client, name)
    seen, spec = Seen.of(f"/services/{service['ID']}", service), service["Spec"]
    try:
        edit_replicas(spec["Mode"], {"replicas": replicas})
    except InvalidArgument:
        raise SwarmError(f"{name}: scale can only be used with replicated or replicated-job mode") from None
    seen.update(client, spec)
    return str(service["ID"])


@click.command()
@click.argument("name", metavar="SERVICE")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until the service has converged")
@click.pass_context
def rebalance(ctx: click.Context, /, name: str, detach: bool) -> None:
    """Move a service's tasks until its nodes have the same number of them.

    Tasks are replaced as by an update, in the service's update order.
    """
    with connect(ctx) as client:
        try:
            moved = client.post(f"/services/{name}/rebalance")["Moved"]
        except ApiError as error:
            raise missing("service", error, name) from None
        click.echo(f"{name}: {moved} task{'' if moved == 1 else 's'} moved")
        if moved and not detach:
            from swarm.cli.progress import watch_service

            watch_service(client, find_service(client, name)["ID"])


@click.command()
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def rm(ctx: click.Context, /, names: tuple[str, ...]) -> None:
    """Remove services; their tasks stop in the background."""
    with connect(ctx) as client:

        def remove(name: str) -> None:
            try:
                client.delete(f"/services/{name}")
            except ApiError as error:
                raise missing("service", error, name) from None
            click.echo(name)

        for_each(ctx, names, remove)
