"""service inspect."""

from __future__ import annotations

import click

from swarm.api.client import ApiError
from swarm.base.errors import InvalidArgument
from swarm.cli.options import OBJECT_FORMAT_HELP, Json, connect, for_each, inspect_each, missing


@click.command()
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@click.option("-f", "--format", "template", default="", metavar="FORMAT", help=OBJECT_FORMAT_HELP)
@click.option("--pretty", is_flag=True, help="Print in a form for people")
@click.pass_context
def inspect(ctx: click.Context, /, names: tuple[str, ...], template: str, pretty: bool) -> None:
    """Show services in detail."""
    if pretty and template:
        raise InvalidArgument("--format is incompatible with human friendly format")
    with connect(ctx) as client:

        def find(name: str) -> Json:
            try:
                found = client.get(f"/services/{name}", insertDefaults=True)
            except ApiError as error:
                raise missing("service", error, name) from None
            assert isinstance(found, dict)
            return found

        if not pretty:
            inspect_each(ctx, names, find, template)
            return
        from swarm.base.clock import SystemClock
        from swarm.cli.pretty import pretty_service
        from swarm.cli.resolve import names_of_networks

        now = SystemClock().now()

        def show(name: str) -> None:
            service = find(name)
            click.echo(pretty_service(service, now, names_of_networks(client, service["Spec"])), nl=False)

        for_each(ctx, names, show)
